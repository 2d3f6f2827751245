"""Representations of proteins from an encoder: the last hidden states, per residue or pooled, to safetensors or Parquet.

Proteins are batched by tokens, longest first, and written in parts; a command started again continues with the missing ones. Parts are known
by the weights and the sequences, not by names.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from protlig_dd.checkpoints.finite import require_finite
from protlig_dd.config import parse_shard
from protlig_dd.documents import json_or_none
from protlig_dd.errors import ConfigError, FormatError, require
from protlig_dd.files import write_text, written_whole
from protlig_dd.models.encoder import Encoder
from protlig_dd.nn.packed import spans
from protlig_dd.runs.run import Run
from protlig_dd.tokens.tracks import pack

POOLS = ("residues", "mean", "begin")


def embed_proteins(
    run: Run, proteins: Sequence[tuple[str, str]], out: Path, *, pool: str = "mean", tokens_per_call: int = 16_384, shard: str = "0/1"
) -> int:
    """Write the representation of each protein, and return how many the file holds.

    Args:
        run: an opened run whose model is an encoder.
        proteins: (name, sequence); names must differ.
        out: NAME.safetensors, a tensor [e] or [l, e] (float32) by name; or NAME.parquet, with columns name and embedding.
        pool: "residues" (one vector per residue, without begin and end), "mean" over residues, or "begin" (the first token).
        tokens_per_call: maximum tokens per network call (a longer protein is a call of its own).
        shard: "i/n" takes every n-th protein, from the i-th.

    Raises:
        ConfigError: for a model that is no encoder, or an unknown ending, pool or shard.
        FormatError: for a sequence too long for the track, or two proteins with the same name.
    """
    if not isinstance(run.model, Encoder):
        raise ConfigError(f"{run.folder}: found model.kind '{run.config.model.kind}', expected encoder: only it has embeddings")
    if pool not in POOLS:
        raise ConfigError(f"--pool: found '{pool}', expected one of {', '.join(POOLS)}")
    _check_out(out)
    first, jobs = parse_shard(shard)
    mine = list(proteins[first::jobs])
    repeated = [name for name, count in Counter(name for name, _ in mine).items() if count > 1]
    if repeated:
        raise FormatError(f"two proteins are called '{repeated[0]}'; give each a name of its own")
    if any(name == "__metadata__" for name, _ in mine):
        raise FormatError("a protein is called '__metadata__', a word that safetensors keeps for itself; rename it")
    settings = {"model": str(run.folder), "step": run.step, "weights": run.weights_hash, "pool": pool, "shard": shard}
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    _begin(partial, settings)
    marks = {name: _mark(text) for name, text in mine}
    done = _parts(partial, marks)
    left = [item for item in mine if item[0] not in done]
    with tqdm(total=len(mine), initial=len(done), unit="protein", disable=None) as bar:
        for vectors in _vectors(run, run.model, left, pool, tokens_per_call):
            with written_whole(partial / f"part_{len(list(partial.glob('part_*'))):06d}.safetensors") as growing:
                save_file(vectors, growing, metadata={name: marks[name] for name in vectors})
            bar.update(len(vectors))
    _join(partial, out, marks, settings)
    return len(mine)


def _check_out(out: Path) -> None:
    """Refuse an output that cannot be written before anything is computed."""
    if out.suffix not in (".safetensors", ".parquet"):
        raise ConfigError(f"--out {out}: found '{out.suffix}', expected .safetensors or .parquet")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder, expected the name of a file; give another one")
    if out.suffix == ".parquet":
        require("pyarrow.parquet", "writing Parquet", extra="data")


def numbered(proteins: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return proteins with unique names: the second X becomes X.2, if no other protein has that name."""
    given, counts = {name for name, _ in proteins}, Counter[str]()
    result = []
    for name, text in proteins:
        counts[name] += 1
        while counts[name] > 1 and f"{name}.{counts[name]}" in given:
            counts[name] += 1
        result.append((name if counts[name] == 1 else f"{name}.{counts[name]}", text))
    return result


def fitting(run: Run, proteins: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the proteins that fit the run's maximum length, and the names of those that do not."""
    track = run.parts.tracks["protein"]
    sizes = [len(track.encode(text, where=name)) for name, text in proteins]
    kept = [item for item, size in zip(proteins, sizes, strict=True) if size <= track.max_length]
    return kept, [name for (name, _), size in zip(proteins, sizes, strict=True) if size > track.max_length]


def _mark(text: str) -> str:
    """The mark of a sequence, by which its vectors are known: a name may stand for another sequence today."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _begin(partial: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a folder of parts; a folder with others, such as other weights, is refused."""
    path = partial / "settings.json"
    if path.is_file():
        found = json_or_none(path.read_text(encoding="utf-8", errors="replace"))
        changed = [name for name in settings if not isinstance(found, dict) or found.get(name) != settings[name]]
        if changed:
            raise ConfigError(f"{partial}: was begun with other settings ({', '.join(changed)}); remove it, or give another --out")
    write_text(path, json.dumps(settings))


def _parts(partial: Path, marks: Mapping[str, str]) -> dict[str, Path]:
    """Return the part that has the vectors of each protein; those of another sequence of the same name count as missing."""
    found = dict[str, Path]()
    for path in sorted(partial.glob("part_*.safetensors")):
        with safe_open(path, framework="pt") as part:
            known = part.metadata() or {}
        found |= {name: path for name, mark in known.items() if marks.get(name) == mark}
    return found


@torch.no_grad()
def _vectors(run: Run, model: Encoder, proteins: Sequence[tuple[str, str]], pool: str, tokens_per_call: int) -> Iterator[dict[str, Tensor]]:
    """Yield the representations of batches of proteins of similar length."""
    track = run.parts.tracks["protein"]
    encoded = sorted(((name, track.encode(text, where=name)) for name, text in proteins), key=lambda item: -len(item[1]))
    for name, ids in encoded[:1]:
        if len(ids) > track.max_length:
            raise FormatError(
                f"{name}: {len(ids)} tokens, the model takes {track.max_length}; embed parts of it, or leave it out with --too-long skip"
            )
    choice = run.choice
    for start, stop in spans([len(ids) for _, ids in encoded], tokens_per_call):
        batch = encoded[start:stop]
        packed = run.parts.complete(pack([{"protein": ids} for _, ids in batch], {"protein": track})).to(choice.device)
        with torch.autocast(choice.device.type, choice.dtype, enabled=choice.autocast):
            hidden = model.embed(packed)["protein"].float().cpu()
        rows = hidden.split([len(ids) for _, ids in batch])
        for (name, _), own in zip(batch, rows, strict=True):
            require_finite(own, f"{run.folder}, {name}")
        yield {name: _pooled(own, pool, track.add_ends) for (name, _), own in zip(batch, rows, strict=True)}


def _pooled(rows: Tensor, pool: str, has_ends: bool) -> Tensor:
    residues = rows[1:-1] if has_ends else rows
    return (residues if pool == "residues" else residues.mean(0) if pool == "mean" else rows[0]).contiguous()


def _join(partial: Path, out: Path, marks: Mapping[str, str], settings: dict[str, Any]) -> None:
    """Join the parts into one file, in the order of the input, and remove them."""
    places, names, found = _parts(partial, marks), list(marks), dict[str, Tensor]()
    for path in dict.fromkeys(places.values()):
        found |= {name: vectors for name, vectors in load_file(path).items() if places.get(name) == path}
    with written_whole(out) as growing:
        if out.suffix == ".parquet":
            arrow = require("pyarrow", "writing Parquet", extra="data")
            parquet = require("pyarrow.parquet", "writing Parquet", extra="data")
            table = arrow.table({"name": names, "embedding": [found[name].tolist() for name in names]})
            parquet.write_table(table, growing)
        else:
            about = {k: str(v) for k, v in settings.items()}
            save_file({name: found[name] for name in names}, growing, metadata=about)
    for file in partial.iterdir():
        file.unlink()
    partial.rmdir()
