"""Similarity of the validation data to the training data: exact copies, and identity to the nearest training protein.

Identities here are over the shorter protein ("shorter" in `similarity.py`), so a fragment of a training protein has 1. The evaluation of
samples divides by the sample ("query").
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

import numpy as np

from protlig_dd.data.permutation import keyed_order, permuted
from protlig_dd.data.similarity import KmerIndex, identity, nearest_identities, per_root_length
from protlig_dd.data.table import Column, TokenTable

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Similarity of the validation proteins and ligands to training.

    Args:
        identity: quantiles 0.1, 0.5, 0.9 and 1 of the identity of a validation protein to its nearest training protein, over the
            shorter of the two.
        null_identity: the median identity to a random training protein.
        proteins: distinct validation proteins compared, and their total.
        exact_proteins: fraction of the validation examples whose protein occurs in training.
        exact_ligands: the same for ligands.
        sampled: training examples read and their total; None if all were read.
    """

    identity: tuple[float, float, float, float] | None = None
    null_identity: float | None = None
    proteins: tuple[int, int] = (0, 0)
    exact_proteins: float | None = None
    exact_ligands: float | None = None
    sampled: tuple[int, int] | None = None

    def line(self) -> str:
        """Return the numbers in one line."""
        parts = []
        if self.identity is not None:
            low, middle, high, top = self.identity
            parts.append(
                f"identity of validation proteins to the nearest training protein: median {middle:.2f} (10 % below {low:.2f}, 10 % above "
                f"{high:.2f}, largest {top:.2f}; a random one {self.null_identity:.2f}; {self.proteins[0]} of {self.proteins[1]} compared)"
            )
        if self.exact_proteins is not None:
            parts.append(f"{self.exact_proteins:.1%} of validation proteins stand in training")
        if self.exact_ligands is not None:
            parts.append(f"{self.exact_ligands:.1%} of validation ligands stand in training")
        within = f" (in {self.sampled[0]} of {self.sampled[1]} training examples)" if self.sampled else ""
        return f"leakage{within}: " + ("; ".join(parts) or "nothing to compare")


def measure_leakage(
    train: TokenTable,
    validation: TokenTable,
    *,
    ends: int = 0,
    seed: int = 0,
    compared: int = 100,
    among: int = 20_000,
    most: int = 300_000,
) -> Leakage:
    """Return the similarity of validation to training examples.

    Args:
        train: the training examples.
        validation: the validation examples.
        ends: 1 if the proteins have begin and end tokens, which are removed.
        seed: seed of the choice of proteins, if there are more than are compared.
        compared: most distinct validation proteins to align.
        among: most distinct training proteins to search. Exact copies are counted over all.
        most: most training examples, and validation examples, to read; a keyed sample of them if there are more, which the line reports.
    """
    sampled = (most, len(train)) if len(train) > most else None
    train, validation = (_some(part, most, seed) for part in (train, validation))
    texts = {t: dict.fromkeys(_texts(train.tracks[t])) for t in ("protein", "ligand") if t in train.tracks}
    exact = {t: _exact_fraction(found, validation.tracks[t]) for t, found in texts.items()}
    known = [np.frombuffer(text, np.int32) for text in texts.get("protein", ())]
    distinct = dict.fromkeys(_texts(validation.tracks["protein"])) if known else ()
    asked = [np.frombuffer(text, np.int32) for text in distinct]
    copies = Leakage(exact_proteins=exact.get("protein"), exact_ligands=exact.get("ligand"), sampled=sampled)
    if not known or not asked:
        return copies

    def sampled_residues(proteins: list[np.ndarray], part: str, limit: int) -> list[np.ndarray]:
        order = keyed_order(seed, "leakage", part, size=len(proteins))[:limit]
        return [proteins[i][ends : len(proteins[i]) - ends] for i in order]

    known, picked = sampled_residues(known, "train", among), sampled_residues(asked, "validation", compared)
    index = KmerIndex(known)
    best, _ = nearest_identities(picked, index, over="shorter", num_candidates=3, by=per_root_length, ordered=False)
    chance = keyed_order(seed, "leakage", "null", size=len(known))
    null = identity(picked, [known[chance[i % len(chance)]] for i in range(len(picked))], over="shorter")
    low, middle, high, top = (float(q) for q in np.quantile(best, [0.1, 0.5, 0.9, 1.0]))
    proteins, null_identity = (len(picked), len(asked)), float(np.median(null))
    return replace(copies, identity=(low, middle, high, top), null_identity=null_identity, proteins=proteins)


def _some(table: TokenTable, most: int, seed: int) -> TokenTable:
    if len(table) <= most:
        return table
    places = permuted(np.arange(most), size=len(table), seed=seed, names=("leakage", "sample"))
    return table.select(np.sort(places))


def _exact_fraction(known: Container[bytes], validation: Column) -> float | None:
    found = [text in known for text in _texts(validation)]
    return sum(found) / len(found) if found else None


def _texts(column: Column) -> Iterator[bytes]:
    """The tokens of each example that has any, as bytes."""
    rows = np.flatnonzero(column.lengths)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        text = column.gather(some).tobytes()
        cuts = np.concatenate([[0], np.cumsum(column.lengths[some], dtype=np.int64) * np.dtype(np.int32).itemsize])
        yield from (text[a:b] for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
