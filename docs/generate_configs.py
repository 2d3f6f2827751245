"""Writes the tables of configs.md from the settings classes; a test holds the page against them.

python docs/generate_configs.py
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protlig_dd.config import kind_of, to_mapping
from protlig_dd.data.settings import PairData, ShardData
from protlig_dd.kanzi.experiment import AutoencoderExperiment
from protlig_dd.runs.experiment import Experiment

PAGE = Path(__file__).with_name("configs.md")
START, END = "<!-- settings: begin -->", "<!-- settings: end -->"
# What the classes do not say as "name: text": by dotted path, which comes first, or by field, which comes last.
MEANINGS = {
    "activation": "of the feed-forward layers; `gelu` is the exact form",
    "activation_checkpointing": "recompute activations in the backward pass: less memory, about a third more time",
    "add_ends": "put begin and end tokens around each sequence; they are never noised",
    "conditioning_size": "width of the noise-level embedding",
    "conditions": "class labels the model may be given, with their number of classes, such as `{affinity_bin: 3}`",
    "affinity": "measured affinities, as -log10 M; concentrations in nM are turned into it",
    "columns": "column names that differ from the usual ones",
    "conv_width": "width of a local convolution before the first block; 0 or null is none. For dual_track by track",
    "cross_attention": "let the tracks read each other",
    "dropout": "in blocks; 0 where runs must be the same on any number of processes",
    "eps": "what survives at t = 1 (log_linear); AdamW's epsilon (train.optim)",
    "factor": "what sigma is multiplied by",
    "base": "the schedule that is scaled",
    "final_silu": "SiLU after the noise-level embedding; the published protein model has none",
    "head_bias": "a bias in the last layer; the published protein model has none",
    "hidden_size": "width of the hidden state; a multiple of 2 x num_heads",
    "label": "1 for pairs that bind, 0 for pairs that do not; only the first are trained on",
    "ligand": "SMILES",
    "mask_id": "the id of the mask",
    "structure": "structure tokens, one for each residue",
    "structure_path": "a FASTA of structure tokens with the names of `path`'s; likewise for validation and test",
    "validation_structure_path": "structure tokens of `validation_path`",
    "test_structure_path": "structure tokens of `test_path`",
    "max_length": "the most tokens of an example, begin and end included",
    "mlp_ratio": "width of the feed-forward layers, as a multiple of hidden_size",
    "name": "what the record is called",
    "num_blocks": "depth (of each track)",
    "num_heads": "attention heads",
    "num_rows": "rows of embedding and head; more than the vocabulary has gives spare rows, 0 is as many as it has",
    "num_steps": "steps, one network call each",
    "num_test": "test pairs",
    "num_validation": "validation pairs",
    "parameters": "the expected parameter count; a mismatch is an error",
    "protein": "the sequence",
    "ramp": "the shape of the ramp",
    "sigma_max": "total noise at t = 1; samplers want 4.7 or more",
    "sigma_min": "total noise at t = 0",
    "split": "the part each record belongs to: train, validation or test",
    "start": "the factor on sigma at step 0",
    "steps": "when the curriculum is over",
    "train.batch_size": "examples a step, of all processes and micro-batches; or null, and tokens_per_batch",
    "train.steps": "optimiser steps; or 0, and tokens",
    "diffusion.schedule": "alpha(t)",
    "diffusion.times": "how t is drawn",
    "diffusion.curriculum": "ramps sigma up over the first steps",
    "train.optim": "how the weights are updated",
    "train.tracking": "which trackers there are beside metrics.jsonl",
    "data.path": "CSV, TSV, JSON lines, Parquet, FASTA, SMILES or a torch list (.gz and .zst too); for shards the folder",
    "tracks": "by name, such as `protein: {kind: protein}`",
    "data": "where examples come from",
    "model": "the network",
    "diffusion": "the process, what logits mean, and the tasks",
    "train": "how long and how it is trained",
    "sampling": "how samples are drawn when nothing else is said",
    "evaluation": "what is measured",
    "strength": "how strong the bias is at step 0",
    "corrected": "weigh the loss by 1 / density(t), so that its mean is the bound at every step",
    "t_min": "the smallest time drawn",
    "test_fraction": "part of the examples kept for the test",
    "validation_fraction": "part of the examples kept for validation",
    "identity": "proteins more alike than this share a cluster",
    "unknown": "symbols outside the vocabulary: `refuse`, or map them (tracks.protein, such as `X`) or drop the record (data)",
    "vocabulary": "`built-in`, or a file made by `protlig prepare vocab`",
}


def classes(annotation: Any) -> list[type]:
    """Return the settings classes in an annotation, however deep."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in classes(argument)]


def in_words(annotation: Any) -> str:
    """Return a type as it reads in YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if (found := classes(annotation)) and not {int, float, str} & set(arguments) and origin is not dict:
        kinds = [kind_of(c) for c in found if kind_of(c)]
        inner = " or ".join(f"`{k}`" for k in kinds) if kinds else "settings below"
        inner = f"list of {inner}" if origin is tuple else inner
        return inner + (" or null" if types.NoneType in arguments else "")
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(a) for a in arguments)
    if origin is dict:
        return f"by name: {in_words(arguments[1])}"
    if origin is tuple:
        return "list of " + in_words(arguments[0])
    return "null" if annotation is types.NoneType else getattr(annotation, "__name__", str(annotation))


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return a default as it reads in YAML."""
    if field.default is dataclasses.MISSING:
        return "required"
    value = to_mapping(field.default)
    if dataclasses.is_dataclass(field.default):
        return f"`{kind_of(type(field.default))}`" if kind_of(type(field.default)) else "below"
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return ", ".join(f"`{v['kind']}`" for v in value)
    words = {None: "null", True: "true", False: "false"}
    plain = words[value] if value is None or isinstance(value, bool) else str(value)
    return f"`{plain}`" if plain else "empty"


def described(cls: type) -> dict[str, str]:
    """Return what the docstring says of each field: the `Args:` or `Attributes:` entries."""
    if cls is ShardData or "as in `PairData`" in (cls.__doc__ or ""):
        return described(PairData)
    found = described(cls.__base__) if cls.__base__ not in (None, object) else {}
    body = re.split(r"^\s*(?:Args|Attributes):\s*$", cls.__doc__ or "", maxsplit=1, flags=re.MULTILINE)
    for line in body[1].splitlines() if len(body) > 1 else []:
        entry = re.match(r"\s{4,8}([a-z_, ]+): (.*)", line)
        if entry:
            last = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(last, entry[2])
        elif line.strip() and found and re.match(r"\s{9,}", line):
            found |= {name: f"{found[name]} {line.strip()}" for name in last}
        elif line.strip():
            break
    return found


def sections(cls: type, path: str, seen: set[type]) -> Iterator[str]:
    """Yield a heading and a table for a class, then for the classes of its fields."""
    seen.add(cls)
    hints, said = typing.get_type_hints(cls), described(cls)
    kind, fields = kind_of(cls), [f for f in dataclasses.fields(cls) if f.name != "kind"]
    yield f"### {f'`{path}`' if path else 'The experiment'}{f': kind `{kind}`' if kind else ''}\n"
    yield " ".join((cls.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|") + "\n"
    if fields:
        yield "| setting | type | default | meaning |\n|---|---|---|---|"
    for field in fields:
        name = f"{path}.{field.name}".lstrip(".")
        meaning = (
            (MEANINGS.get(name) if name != field.name or not path else None)
            or said.get(field.name)
            or MEANINGS.get(field.name, "")
        )
        yield f"| `{field.name}` | {in_words(hints[field.name])} | {default_of(field)} | {meaning.replace('|', chr(92) + '|')} |"
    yield ""
    for field in fields:
        name = f"{path}.{field.name}".lstrip(".") + (".NAME" if typing.get_origin(hints[field.name]) is dict else "")
        for inner in classes(hints[field.name]):
            if inner not in seen:
                yield from sections(inner, name, seen)


def tables() -> str:
    """Return the generated part of the page."""
    seen: set[type] = set()
    tokens = "\n".join(sections(Experiment, "", seen))
    # a name of its own, since its data and model are others than those of MEANINGS; it does not stand in the YAML
    traces = "\n".join(sections(AutoencoderExperiment, "autoencoder", seen)).replace("`autoencoder.", "`")
    traces = traces.replace("### `autoencoder`", "### The experiment of a structure autoencoder")
    return f"{tokens}\n{traces}".replace("\n\n\n", "\n\n").strip()


def page_with(generated: str) -> str:
    """Return the page with its generated part replaced."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{generated}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(tables()), encoding="utf-8")
