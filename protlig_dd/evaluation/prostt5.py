"""ProstT5 as a baseline: 3Di letters from a sequence by a published translation model, through transformers.

Its output is lower case, and converted here to upper case, as in Foldseek; comparing the two without conversion gives an accuracy of 0.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from protlig_dd.checkpoints.hub import absent_weights, is_answered
from protlig_dd.errors import CheckpointError, ProtligError, require

Translate = Callable[[Sequence[str]], list[list[str]]]
"""Returns the 3Di letters of each sequence, one for each residue if the model stops in time."""

PROSTT5 = "Rostlab/ProstT5"
"""The published weights on the Hugging Face Hub (11 GB; 5.6 GB as ProstT5_fp16)."""

_PREFIX = "<AA2fold>"
_RARE = re.compile("[UZOB]")


def prostt5(
    source: str = PROSTT5, *, device: torch.device | str = "cpu", batch_size: int = 8, num_beams: int = 3, local_only: bool = False
) -> Translate:
    """Return a function that translates sequences to 3Di letters with ProstT5.

    Beam search, with as many tokens as the sequence has residues. The authors combine beams with sampling; here the search is deterministic.
    U, Z, O and B become X.

    Args:
        source: a local folder in the Hub's layout, or a Hub id.
        device: the device; off the CPU in half precision, as its authors do.
        batch_size: sequences in one call; each keeps its own length.
        num_beams: beams of the search.
        local_only: use downloaded files only.

    Raises:
        DownloadError: if the weights are neither downloaded nor reachable; the message says what to do.
        CheckpointError: if the tokenizer lacks the prefix <AA2fold>.
        MissingDependencyError: without transformers.

    Source: Heinzinger et al. 2024, NAR Genomics and Bioinformatics 6, lqae150.
    """
    transformers = require("transformers", "ProstT5", extra="hf")
    local_only = local_only or Path(source).is_dir() or not is_answered(source)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, local_files_only=local_only, trust_remote_code=False, do_lower_case=False
        )
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source, local_files_only=local_only, trust_remote_code=False)
    except (OSError, ValueError, ImportError, RuntimeError, pickle.UnpicklingError) as error:
        raise absent_weights(source, error, "ProstT5's weights", "its baseline is left out", PROSTT5) from error
    if tokenizer.convert_tokens_to_ids(_PREFIX) in (None, tokenizer.unk_token_id):
        raise CheckpointError(f"{source}: its tokenizer does not know '{_PREFIX}', expected ProstT5 such as {PROSTT5}")
    model = model.eval().to(device)
    if torch.device(device).type != "cpu":
        model = model.half()

    @torch.no_grad()
    def translate(sequences: Sequence[str]) -> list[list[str]]:
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        answers: list[list[str]] = [[] for _ in sequences]
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            lengths = [len(sequences[i]) for i in rows]
            words = [f"{_PREFIX} {' '.join(_RARE.sub('X', sequences[i].upper()))}" for i in rows]
            given = tokenizer(words, add_special_tokens=True, padding="longest", return_tensors="pt").to(device)
            out = model.generate(
                given.input_ids, attention_mask=given.attention_mask, num_beams=num_beams, do_sample=False,
                min_new_tokens=min(lengths), max_new_tokens=max(lengths) + 1,
            )  # fmt: skip
            for row, text in zip(rows, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
                answers[row] = list("".join(text.split()).upper())
        return answers

    return translate


def find_prostt5(source: str = PROSTT5, *, device: torch.device | str = "cpu", local_only: bool = False) -> tuple[Translate | None, str]:
    """Return the translation function and an empty text, or None and one line with the reason and what to do."""
    try:
        return prostt5(source, device=device, local_only=local_only), ""
    except ProtligError as error:
        return None, str(error)
