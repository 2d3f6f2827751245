"""Coordinates of sampled structure tokens, for `protlig sample --out x.pdb`: Kanzi's codes decoded by the autoencoder that made them."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protlig_dd.errors import ConfigError
from protlig_dd.kanzi.experiment import open_tokenizer
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request
from protlig_dd.structures.structure_io import Chain, write_pdb
from protlig_dd.tokens.protein import split_protein

_NO_FILE_NAME = re.compile(r"[^\w.-]")


def decoder_for(options: Namespace, run: Run) -> KanziTokenizer:
    """Return what turns a run's structure tokens into coordinates.

    Raises:
        ConfigError: if the run has no such tokens, or no tokenizer is given.
    """
    track = run.parts.tracks.get("structure")
    alphabet = "none" if track is None else track.vocabulary.name.split(" ")[0]
    if alphabet != "kanzi":
        raise ConfigError(
            f"--out {options.out}: this run's structure tokens are {alphabet}, and only Kanzi's codes hold coordinates that can be decoded "
            f"here; write .fasta or .csv"
        )
    if not options.tokenizer:
        raise ConfigError(
            f"--out {options.out}: needs --tokenizer, the autoencoder that made the tokens: a run of 'protlig train kanzi/tiny', or a "
            f"published file (.pt)"
        )
    return open_tokenizer(options.tokenizer, device=options.device)


def write_coordinates(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    requests: Sequence[Request],
    num: int,
    decoder: KanziTokenizer,
    seed: int,
) -> list[Path]:
    """Write a PDB file of C-alphas for each sample, and return the files: OUT itself for a single one, else OUT_NAME_ID.

    Args:
        out: such as "x.pdb".
        rows: samples with their tokens as `structure`.
        requests: that they answer; sample i answers request i // num.
        num: samples a request.
        decoder: of the tokens.
        seed: of the coordinates.
    """
    tokens = [[int(code) for code in row["structure"].split(",")] for row in rows]
    written = []
    for row, coords in zip(rows, decoder.decode(tokens, seed=seed), strict=True):
        given = requests[int(row["id"]) // num].given
        sequence = "".join(split_protein(row.get("protein") or given.get("protein") or "X", unknown="X"))
        if len(sequence) != len(coords):  # of a learned length, or of no protein
            sequence = "X" * len(coords)
        name = _NO_FILE_NAME.sub("_", f"{out.stem}_{row['name']}_{row['id']}")
        path = out if len(rows) == 1 else out.with_name(f"{name}.pdb")
        write_pdb(Chain.of_coordinates(sequence, coords[:, None]), path)
        written.append(path)
    return written
