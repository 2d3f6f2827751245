"""Export of a causal model to a folder for stock transformers and peft: weights or adapters, and a tokenizer with one id per structure token."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from protlig_dd import __version__
from protlig_dd.causal.bases import extended_tokenizer, minimal_tokenizer
from protlig_dd.causal.generate import CausalRun
from protlig_dd.causal.model import Causal, CausalSettings
from protlig_dd.causal.sequences import CausalBatch, new_symbols, pack_sequences
from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.checkpoints.finite import require_finite_weights
from protlig_dd.errors import require
from protlig_dd.files import write_json, written_whole
from protlig_dd.tokens.protein import AMINO_ACIDS
from protlig_dd.tokens.tracks import TrackSet, pack

_PROBE = (AMINO_ACIDS, AMINO_ACIDS[::-1] * 2, AMINO_ACIDS[:7])


def save_causal(folder: Path, settings: CausalSettings, model: Causal, tracks: TrackSet, *, passport: Mapping[str, Any]) -> None:
    """Write a model's folder: `AutoModelForCausalLM` and `AutoTokenizer` load it, or `AutoPeftModelForCausalLM` where it has adapters.

    Args:
        folder: created if it does not exist; existing files are replaced.
        settings: the settings of the model.
        model: the model, on any device.
        tracks: the tracks it was built for.
        passport: the content of `passport.json`, to which the hash of the weights is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    structure = tracks["structure"]
    tokenizer = extended_tokenizer(settings.base, new_symbols(structure))[1] if settings.base else minimal_tokenizer(structure)
    tokenizer.save_pretrained(folder)
    if settings.lora is None:
        model.llama.save_pretrained(folder)
        weights = model.llama.state_dict()
    else:
        weights = _save_adapters(folder, settings, model)
    hashed = hash_tensors({name: value.detach().cpu() for name, value in weights.items()})
    write_json(folder / "passport.json", {**passport, "weights_hash": hashed}, indent=2)


def _save_adapters(folder: Path, settings: CausalSettings, model: Causal) -> dict[str, Tensor]:
    """Write the adapters and the new tokens' rows in peft's layout."""
    assert settings.lora is not None and model.new_rows is not None
    rows = model.new_rows
    tables = {"embed_tokens": rows.embedding.weight} | ({} if rows.head is None else {"lm_head": rows.head.weight})
    ids = list(range(rows.first, model.num_rows))
    base = str(Path(settings.base).resolve()) if Path(settings.base).is_dir() else settings.base
    trained = dict.fromkeys(tables, ids) if ids else None
    config = settings.lora.peft_config(base_model_name_or_path=base, trainable_token_indices=trained, inference_mode=True)
    config.save_pretrained(folder)
    state = {
        f"base_model.model.{name.removeprefix('llama.').replace('.default.', '.')}": value
        for name, value in model.state_dict().items()
        if ".lora_" in name
    }
    places = {"embed_tokens": "base_model.model.model.embed_tokens", "lm_head": "base_model.model.lm_head"}
    state |= {f"{places[n]}.token_adapter.trainable_tokens_delta": value for n, value in tables.items() if ids}
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with written_whole(folder / "adapter_model.safetensors") as growing:
        save_file(state, growing, metadata={"format": "pt"})
    return state


@torch.no_grad()
def difference_from_stock(folder: Path, model: Causal, probe: CausalBatch) -> float:
    """Return the largest difference between a model's logits and those of its folder in stock transformers, sequence by sequence.

    Args:
        folder: a folder written by `save_causal` for a model without adapters.
        model: the model, on the host.
        probe: the sequences to compare on.
    """
    transformers = require("transformers", "reading the folder back", extra="hf")
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    ours = model(probe.tokens, probe.layout).float()
    pieces = probe.tokens.split(list(probe.layout.lengths))
    theirs = torch.cat([stock(input_ids=ids[None]).logits[0] for ids in pieces])
    return float((ours - theirs).abs().max())


def export_causal(run: CausalRun, folder: Path, *, licence: str, source: str) -> dict[str, Any]:
    """Write a causal run as a folder that stock transformers loads, compare its logits with ours, and return its passport.

    Args:
        run: an opened run of a causal model.
        folder: the folder to write; made if it is absent.
        licence: licence of the weights, for the passport.
        source: where the weights come from, for the passport.
    """
    settings, model = run.config.model, run.model
    assert isinstance(settings, CausalSettings) and isinstance(model, Causal)
    require_finite_weights(model, source)
    vocabulary = settings.vocabulary(run.tracks)
    passport = {
        "made_by": f"protlig_dd {__version__}",
        "source": source,
        "source_hash": f"step {run.step}",
        "licence": licence or "not stated",
        "vocabularies": {name: track.vocabulary.fingerprint for name, track in run.tracks.items()},
        "prompt": vocabulary.text(vocabulary.prompt(_probe(run, _PROBE[2:])[0]["protein"])),
        "parity": "not measured: its base would have to be read again",
    }
    model.to("cpu")
    with tempfile.TemporaryDirectory() as first:
        if settings.lora is None:
            save_causal(Path(first), settings, model, run.tracks, passport=passport)
            batch = pack_sequences(pack(_probe(run, _PROBE), run.tracks), vocabulary)
            found = difference_from_stock(Path(first), model, batch)
            passport["parity"] = f"largest difference of logits in stock transformers: {found:.1e}"
    save_causal(folder, settings, model, run.tracks, passport=passport)
    model.to(run.choice.device)
    return passport


def _probe(run: CausalRun, texts: Sequence[str]) -> list[dict[str, list[int]]]:
    """Return proteins, each with as many structure tokens: the alphabet, repeated."""
    codes = sorted(run.tracks["structure"].vocabulary.emittable_ids)
    protein = run.tracks["protein"]
    return [{"protein": protein.encode(t), "structure": [codes[i % len(codes)] for i in range(len(t))]} for t in texts]
