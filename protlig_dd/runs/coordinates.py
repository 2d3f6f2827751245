"""Coordinates of sampled structure tokens, decoded by the autoencoder that made them, as PDB files (`protlig sample --out x.pdb`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protlig_dd.checkpoints.finite import require_finite
from protlig_dd.errors import ConfigError, require
from protlig_dd.runs.families.tokenizers import StructureTokenizer, has_tokenizer, open_structure_tokenizer
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request
from protlig_dd.structures.structure_io import Chain, write_pdb
from protlig_dd.tokens.protein import split_protein
from protlig_dd.tokens.structure import alphabet_of

_TOKEN_NAME = re.compile(r"<\w+>|_")  # letters of DPLM's samplers such as <unk>, and gaps
_NO_FILE_NAME = re.compile(r"[^\w.-]", re.ASCII)
_LONGEST_NAME = 100
"""File systems take names of 255 bytes; the id that follows tells cut names apart."""


def decoder_for(options: SampleOptions, run: Run) -> StructureTokenizer:
    """Return the tokenizer that decodes a run's structure tokens.

    Raises:
        ConfigError: if the tokens of the run cannot be decoded, or no tokenizer is given.
    """
    alphabet = alphabet_of(run.tracks.get("structure"))
    if not has_tokenizer(alphabet):
        raise ConfigError(
            f"--out {options.out}: this run's structure tokens are {alphabet}, and only Kanzi's codes hold coordinates that can be decoded "
            f"here; write .fasta or .csv"
        )
    if not options.tokenizer:
        raise ConfigError(
            f"--out {options.out}: needs --tokenizer, the autoencoder that made the tokens: a run of 'protlig train kanzi/tiny', or a "
            f"published file (.pt)"
        )
    require("gemmi", "writing PDB files", extra="structure")
    return open_structure_tokenizer(alphabet, options.tokenizer, device=options.device)


def write_coordinates(
    out: Path, rows: Sequence[Mapping[str, Any]], requests: Sequence[Request], num: int, decoder: StructureTokenizer, seed: int
) -> list[Path]:
    """Write a PDB file of C-alphas for each sample, and return the files: OUT itself for a single one, else OUT_NAME_ID.

    Args:
        out: the file, such as "x.pdb".
        rows: the samples, with their tokens as `structure`.
        requests: their requests; sample i answers request i // num.
        num: samples per request.
        decoder: the tokenizer of the tokens.
        seed: seed of the decoder's noise.
    """
    tokens = [[int(code) for code in row["structure"].split(",")] for row in rows]
    written = []
    for row, coords in zip(rows, decoder.decode(tokens, seed=seed), strict=True):
        given = requests[int(row["id"]) // num].given
        text = _TOKEN_NAME.sub("X", row.get("protein") or given.get("protein") or "X")
        sequence = "".join(split_protein(text, unknown="X"))
        require_finite(coords, f"--tokenizer, sample {row['id']}")
        if len(sequence) != len(coords):  # a learned length, or no protein
            sequence = "X" * len(coords)
        name = _NO_FILE_NAME.sub("_", row["name"][:_LONGEST_NAME])
        path = out if len(rows) == 1 else out.with_name(f"{out.stem}_{name}_{row['id']}.pdb")
        write_pdb(Chain.of_coordinates(sequence, coords[:, None]), path)
        written.append(path)
    return written
