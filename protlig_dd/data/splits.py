"""Splits of the examples into training, validation and test. `leakage.py` measures how similar the parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from protlig_dd.config import settings
from protlig_dd.data.encode import SPLIT_CODES
from protlig_dd.data.permutation import keyed_order
from protlig_dd.data.similarity import cluster_proteins
from protlig_dd.data.table import Column, TokenTable
from protlig_dd.errors import ConfigError, require
from protlig_dd.tokens.tracks import Track, TrackSet

Rows = Int64[np.ndarray, " _"]


@settings
class _Fractions:
    """The fractions of the examples for validation and test."""

    kind: str = ""
    validation_fraction: float = 0.05
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        validation, test = self.validation_fraction, self.test_fraction
        if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
            raise ValueError(f"found validation_fraction={validation} and test_fraction={test}; expected 0 or more each, together below 1")


@settings
class GivenSplit:
    """The file's own split column; without a validation part, a random fraction of the training rows is used for validation."""

    kind: Literal["given"] = "given"
    validation_fraction: float = 0.05

    def __post_init__(self) -> None:
        _Fractions(validation_fraction=self.validation_fraction)


@settings
class RandomSplit(_Fractions):
    """Random examples: the easiest split, since near copies are on both sides."""

    kind: Literal["random"] = "random"


@settings
class ProteinSplit(_Fractions):
    """No protein on both sides (cold proteins)."""

    kind: Literal["protein"] = "protein"


@settings
class LigandSplit(_Fractions):
    """No ligand on both sides (warm proteins: they are known, the ligands are new); the same molecule written in two ways is two ligands."""

    kind: Literal["ligand"] = "ligand"


@settings
class ScaffoldSplit(_Fractions):
    """No Bemis-Murcko scaffold on both sides. Molecules without rings share the empty scaffold.

    Source: Bemis and Murcko 1996, J. Med. Chem. 39, 2887; as RDKit computes it.
    """

    kind: Literal["scaffold"] = "scaffold"


@settings
class ClusterSplit(_Fractions):
    """No cluster of similar proteins on both sides (greedy k-mer clusters, see `similarity.cluster_proteins`)."""

    kind: Literal["cluster"] = "cluster"
    identity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.2 <= self.identity <= 1:
            raise ValueError(f"found identity={self.identity}; expected 0.2 to 1")


SplitSettings = GivenSplit | RandomSplit | ProteinSplit | LigandSplit | ScaffoldSplit | ClusterSplit


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The rows of each part, and how they were chosen, in words."""

    train: Rows
    validation: Rows
    test: Rows
    how: str


def split_rows(table: TokenTable, tracks: TrackSet, how: SplitSettings, *, seed: int) -> Split:
    """Return the rows of the training, validation and test parts; every row is in one, except those that a given split excludes.

    Raises:
        ConfigError: if the table lacks a track that the split needs, or a part would be empty.
    """
    if isinstance(how, GivenSplit):
        return _given(table, how, seed)
    if isinstance(how, RandomSplit):
        parts = _deal_singly(len(table), (how.validation_fraction, how.test_fraction), seed=seed, kind=how.kind)
        return Split(train=parts[0], validation=parts[1], test=parts[2], how=f"random over {len(table)} examples")
    if isinstance(how, LigandSplit):
        groups = same_sequence_groups(_column(table, "ligand", how.kind))
    elif isinstance(how, ScaffoldSplit):
        groups = scaffold_groups(_column(table, "ligand", how.kind), tracks["ligand"])
    else:
        column = _column(table, "protein", how.kind)
        groups = same_sequence_groups(column)
        if isinstance(how, ClusterSplit):
            firsts = np.unique(groups, return_index=True)[1]
            proteins = [column.gather(np.array([row])) for row in firsts]
            groups = cluster_proteins(proteins, how.identity)[groups]
    parts = _deal(groups, (how.validation_fraction, how.test_fraction), seed=seed, kind=how.kind)
    count = len(np.unique(groups))
    words = {"protein": "distinct proteins", "ligand": "distinct ligands", "scaffold": "scaffolds", "cluster": "protein clusters"}[how.kind]
    return Split(train=parts[0], validation=parts[1], test=parts[2], how=f"{how.kind} over {count} {words}")


def _column(table: TokenTable, track: str, kind: str) -> Column:
    if track not in table.tracks:
        raise ConfigError(f"data.split.kind: found '{kind}', the data have no track '{track}'; use kind=random")
    return table.tracks[track]


def _given(table: TokenTable, how: GivenSplit, seed: int) -> Split:
    codes = table.labels.get("split", np.full(len(table), -1))
    rows = {name: np.flatnonzero(codes == code) for name, code in SPLIT_CODES.items()}
    unnamed, other = int((codes == -1).sum()), int((codes == 3).sum())
    if len(rows["train"]) == 0:
        raise ConfigError(
            "data.split.kind: found 'given', the file assigns no row to 'train' (or has no split column); "
            "name it with data.columns.split, or use kind=random, protein, ligand, scaffold or cluster"
        )
    notes = [f"{unnamed} rows without a split left out"] if unnamed else []
    notes += [f"{other} rows of other splits left out"] if other else []
    train, validation = rows["train"], rows["validation"]
    if len(validation) == 0 and how.validation_fraction > 0:
        train, validation, _ = _deal_singly(len(train), (how.validation_fraction, 0.0), seed=seed, kind="given")
        train, validation = rows["train"][train], rows["train"][validation]
        notes.append(f"{len(validation)} training rows at random for validation")
    return Split(train=train, validation=validation, test=rows["test"], how="; ".join(["given by the file", *notes]))


def _deal_singly(count: int, fractions: tuple[float, float], *, seed: int, kind: str) -> tuple[Rows, Rows, Rows]:
    """Assign rows, in keyed order, to validation and test until they are full, the rest to training: `_deal` of groups of one."""
    order = keyed_order(seed, "split", kind, size=count)
    rooms = [round(fraction * count) or int(fraction > 0) for fraction in fractions]
    if sum(rooms) >= count:
        raise ConfigError(f"data.split: a {kind} split of {count} rows leaves nothing to train on; use more data")
    validation, test, train = np.split(order, np.cumsum(rooms))
    return np.sort(train), np.sort(validation), np.sort(test)


def _deal(groups: Rows, fractions: tuple[float, float], *, seed: int, kind: str) -> tuple[Rows, Rows, Rows]:
    """Assign whole groups, in keyed order, to validation and test until they are full, the rest to training."""
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    part_of = np.zeros(len(sizes), np.int64)
    order = keyed_order(seed, "split", kind, size=len(sizes))
    for part, fraction in ((1, fractions[0]), (2, fractions[1])):
        room = round(fraction * len(groups)) or int(fraction > 0)
        # A group of more than twice the room would be most of the part; it is used for training instead.
        for group in order[part_of[order] == 0].tolist():
            if room <= 0:
                break
            if sizes[group] <= max(2 * room, 1):
                part_of[group] = part
                room -= int(sizes[group])
        if fraction > 0 and not (part_of == part).any():
            raise ConfigError(
                f"data.split: no group of a {kind} split is small enough for a part of {fraction:.3g}; the largest of {len(sizes)} groups holds "
                f"{sizes.max()} of {len(groups)} rows; use another kind or a larger fraction"
            )
    rows = part_of[groups]
    if not (rows == 0).any():
        raise ConfigError(
            f"data.split: a {kind} split of {len(groups)} rows in {len(sizes)} groups leaves nothing to train on; use more data"
        )
    return np.flatnonzero(rows == 0), np.flatnonzero(rows == 1), np.flatnonzero(rows == 2)


def same_sequence_groups(column: Column) -> Rows:
    """Return a number for each example, equal for equal token sequences."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(column.gather(np.array([i])).tobytes(), len(seen)) for i in range(len(column))], np.int64)


def scaffold_groups(column: Column, track: Track) -> Rows:
    """Return a number for each molecule, equal for equal Bemis-Murcko scaffolds; a SMILES that RDKit cannot read is its own scaffold."""
    chem = require("rdkit.Chem", "splitting by scaffold", extra="ligand")
    murcko = require("rdkit.Chem.Scaffolds.MurckoScaffold", "splitting by scaffold", extra="ligand")
    base = require("rdkit.rdBase", "splitting by scaffold", extra="ligand")
    seen: dict[str, int] = {}
    groups = []
    with base.BlockLogs():
        for i in range(len(column)):
            smiles = track.decode(column.gather(np.array([i])).tolist())
            molecule = chem.MolFromSmiles(smiles)
            scaffold = smiles if molecule is None else murcko.MurckoScaffoldSmiles(mol=molecule)
            groups.append(seen.setdefault(scaffold, len(seen)))
    return np.array(groups, np.int64)
