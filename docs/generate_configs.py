"""Write the tables of configs.md from the settings classes; a test compares the page with them.

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
# Meanings that the docstrings do not give as "name: text": by dotted path (overrides the docstring) or by field name (used last).
MEANINGS = {
    "activation": "activation of the feed-forward layers; `gelu` is the exact form",
    "activation_checkpointing": "recompute activations in the backward pass: less memory, about a third more time",
    "add_ends": "put begin and end tokens around each sequence; they are never noised",
    "conditioning_size": "width of the noise-level embedding",
    "conditions": "class labels that the model can take as input, with their number of classes, such as `{affinity_bin: 3}`",
    "affinity": "measured affinities; `data.affinity` says how they are read",
    "columns": "column names that differ from the usual ones",
    "conv_width": "width of a local convolution before the first block; 0 or null for none. For dual_track one value per track",
    "cross_attention": "attention between the tracks",
    "dropout": "dropout in the blocks; use 0 for runs that must be the same on any number of processes",
    "eps": "alpha at t = 1, the share of unnoised tokens (log_linear); AdamW's epsilon (train.optim)",
    "factor": "factor on sigma",
    "base": "the schedule that is scaled",
    "final_silu": "SiLU after the noise-level embedding; the published protein model has none",
    "head_bias": "a bias in the output layer; the published protein model has none",
    "hidden_size": "width of the hidden state; a multiple of 2 x num_heads",
    "label": "1 for pairs that bind, 0 for pairs that do not; only binding pairs are used for training",
    "ligand": "SMILES",
    "mask_id": "the id of the mask token",
    "structure": "structure tokens, one per residue",
    "structure_path": "a FASTA of structure tokens with the same names as `path`; likewise for validation and test",
    "validation_structure_path": "structure tokens of `validation_path`",
    "test_structure_path": "structure tokens of `test_path`",
    "max_length": "maximum number of tokens of an example, including begin and end",
    "mlp_ratio": "width of the feed-forward layers, as a multiple of hidden_size",
    "name": "the name of the record",
    "num_blocks": "number of blocks (of each track)",
    "num_heads": "number of attention heads",
    "num_rows": "rows of embedding and output layer; a number above the vocabulary size adds unused rows, 0 means the vocabulary size",
    "num_steps": "number of steps, one network call each",
    "num_test": "number of test pairs",
    "num_validation": "number of validation pairs",
    "parameters": "the expected parameter count; a mismatch is an error",
    "protein": "the protein sequence",
    "ramp": "the shape of the ramp",
    "sigma_max": "total noise at t = 1; samplers need 4.7 or more",
    "sigma_min": "total noise at t = 0",
    "split": "the part each record belongs to: train, validation or test",
    "start": "factor on sigma at step 0",
    "steps": "the step at which the curriculum ends",
    "train.batch_size": "examples per step over all processes and micro-batches; null if tokens_per_batch is set",
    "train.steps": "optimiser steps; 0 if tokens is set",
    "diffusion.schedule": "alpha(t)",
    "diffusion.times": "the distribution of t",
    "diffusion.curriculum": "increases sigma over the first steps",
    "train.optim": "the optimiser",
    "train.tracking": "trackers in addition to metrics.jsonl",
    "data.path": "a file: CSV, TSV, JSON lines, Parquet, FASTA, SMILES or a torch list (.gz and .zst too); for shards their folder",
    "tracks": "the tracks by name, such as `protein: {kind: protein}`",
    "data": "the source of the examples",
    "model": "the network",
    "diffusion": "the process, the interpretation of logits, and the tasks",
    "train": "training length, batches, optimiser, tracking",
    "sampling": "the defaults of sampling",
    "evaluation": "what is evaluated",
    "strength": "strength of the bias at step 0",
    "corrected": "weight the loss by 1 / density(t), so that its mean is the bound at every step",
    "t_min": "the smallest time drawn",
    "test_fraction": "fraction of the examples held out for the test",
    "validation_fraction": "fraction of the examples held out for validation",
    "identity": "proteins with a higher identity are in the same cluster",
    "unknown": "symbols outside the vocabulary: `refuse` is an error; tracks.protein can map them (`X`), data can drop the record",
    "vocabulary": "`built-in`, or a file made by `protlig prepare vocab`",
}


def classes(annotation: Any) -> list[type]:
    """Return the settings classes in an annotation, nested ones included."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in classes(argument)]


def in_words(annotation: Any) -> str:
    """Return a description of a type as written in YAML."""
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
    """Return a default value as written in YAML."""
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
    """Return the description of each field in the docstring: the `Args:` or `Attributes:` entries."""
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
        meaning = (MEANINGS.get(name) if name != field.name or not path else None) or said.get(field.name) or MEANINGS.get(field.name, "")
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
    # under its own path, because its data and model differ from those of MEANINGS; the path is not part of the YAML
    traces = "\n".join(sections(AutoencoderExperiment, "autoencoder", seen)).replace("`autoencoder.", "`")
    traces = traces.replace("### `autoencoder`", "### The experiment of a structure autoencoder")
    return f"{tokens}\n{traces}".replace("\n\n\n", "\n\n").strip()


def page_with(generated: str) -> str:
    """Return the page with its generated part replaced."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{generated}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(tables()), encoding="utf-8")
