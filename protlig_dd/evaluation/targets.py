"""Targets with the ligands that are known to bind them, and the molecules that a model is compared with at each target.

`specificity.py` measures; here are the reference (`Targets`), what was trained on (`Training`), and fingerprints. A target is named by any
text; two targets are similar if their sequences are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd import rng
from protlig_dd.data.similarity import KmerIndex, Protein, cluster_proteins, jaccard
from protlig_dd.errors import require
from protlig_dd.evaluation.ligands import canonical_smiles, parse_molecule, silent_rdkit

CLUSTER_IDENTITY = 0.5
"""Proteins of at least this identity to a cluster's representative are one unit of a bootstrap, and no shuffled partners of each other."""
LEAST_ACTIVES = 3

_NO_LETTER = re.compile(r"[^A-Z]+")


def sequence_clusters(proteins: Sequence[Protein]) -> Int64[np.ndarray, " n"]:
    """Return the number of the cluster of similar sequences of each protein; equal proteins are compared once."""
    seen: dict[bytes | str, int] = {}
    distinct, rows = list[Protein](), list[int]()
    for protein in proteins:
        key = protein if isinstance(protein, str) else np.asarray(protein).tobytes()
        if key not in seen:
            seen[key] = len(distinct)
            distinct.append(protein)
        rows.append(seen[key])
    return np.asarray(cluster_proteins(distinct, CLUSTER_IDENTITY)[np.array(rows, np.int64)])


def fingerprints(smiles: Sequence[str]) -> list[Any]:
    """Return RDKit's Morgan fingerprint of each valid SMILES, radius 2, 2048 bits.

    Source: Rogers and Hahn 2010, J. Chem. Inf. Model. 50, 742, as implemented in RDKit.
    """
    generator = require("rdkit.Chem.rdFingerprintGenerator", "fingerprints", extra="ligand").GetMorganGenerator(radius=2, fpSize=2048)
    with silent_rdkit():
        return [generator.GetFingerprint(parse_molecule(text)[0]) for text in smiles]


def tanimoto(prints: Sequence[Any], others: Sequence[Any]) -> Float[np.ndarray, "n m"]:
    """Return the Tanimoto similarity of each fingerprint to each of the others, 0 to 1."""
    compare = require("rdkit.DataStructs", "fingerprints", extra="ligand").BulkTanimotoSimilarity
    table = np.zeros((len(prints), len(others)))
    for row, one in enumerate(prints):
        table[row] = compare(one, others)
    return table


def nearest_similarity(prints: Sequence[Any], others: Sequence[Any]) -> Float[np.ndarray, " n"]:
    """Return the Tanimoto similarity of each fingerprint to its nearest one among the others; 0 if there are none."""
    compare = require("rdkit.DataStructs", "fingerprints", extra="ligand").BulkTanimotoSimilarity
    return np.array([max(compare(one, others), default=0.0) for one in prints])


def nearest_actives(molecules: Sequence[str], actives: Sequence[str]) -> list[tuple[str, float]]:
    """Return, for each molecule, the most similar active and the Tanimoto similarity; ("", 0.0) without a valid one of each.

    >>> nearest_actives(["CCO", "C("], ["CCN", "OCC"])
    [('CCO', 1.0), ('', 0.0)]
    """
    known = distinct_molecules(actives)
    reference = fingerprints(known)
    found = list[tuple[str, float]]()
    for smiles in canonical_smiles(molecules):
        similarities = tanimoto(fingerprints([smiles]), reference)[0] if smiles is not None and known else np.zeros(0)
        best = int(similarities.argmax()) if len(similarities) else -1
        found.append((known[best], float(similarities[best])) if best >= 0 else ("", 0.0))
    return found


def distinct_molecules(smiles: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct canonical SMILES of the valid ones."""
    return tuple(dict.fromkeys(one for one in canonical_smiles(smiles) if one is not None))


def draw_some(molecules: Sequence[str], num: int, seed: int, *names: str) -> list[str]:
    """Return at most `num` of the molecules, drawn without replacement from a seed and names."""
    rows = np.random.default_rng(rng.key(seed, *names)).permutation(len(molecules))[:num]
    return [molecules[i] for i in rows.tolist()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Some targets with their reference actives.

    Attributes:
        proteins: the sequence of each target by its name; characters other than letters are ignored.
        actives: the distinct canonical SMILES of the actives of each of these targets.
        num_left_out: targets with fewer than three actives, which are not among these.
    """

    proteins: Mapping[str, str]
    actives: Mapping[str, Sequence[str]]
    num_left_out: int = 0

    @staticmethod
    def of(proteins: Mapping[str, str], actives: Mapping[str, Sequence[str]], training: Training | None = None) -> Targets:
        """Return the targets that have at least three different actives.

        Args:
            proteins: the sequence of each target.
            actives: the SMILES of the actives of each target; invalid ones are left out.
            training: a model's training pairs; actives of a target that it was trained on are left out.

        Raises:
            ValueError: if fewer than two targets have three actives: "other targets" then has no meaning.
        """
        sequences = {name: _NO_LETTER.sub("", protein.upper()) for name, protein in proteins.items()}
        known = {name: distinct_molecules(actives.get(name, ())) for name in proteins}
        if training is not None:
            known = {name: tuple(one for one in smiles if one not in training.of(sequences[name])) for name, smiles in known.items()}
        kept = {name: smiles for name, smiles in known.items() if len(smiles) >= LEAST_ACTIVES}
        if len(kept) < 2:
            raise ValueError(
                f"actives: found {len(kept)} of {len(known)} targets with {LEAST_ACTIVES} different actives or more"
                f"{' that were not trained on' if training is not None else ''}, expected at least 2 targets; specificity compares targets"
            )
        return Targets(proteins={name: sequences[name] for name in kept}, actives=kept, num_left_out=len(known) - len(kept))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of columns of similarities."""
        return tuple(self.actives)

    def some(self, num: int) -> Targets:
        """Return at most `num` of the targets, evenly spread over them."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(num, len(self))).astype(np.int64))
        names = [self.names[row] for row in rows.tolist()]
        return replace(self, proteins={n: self.proteins[n] for n in names}, actives={n: self.actives[n] for n in names})

    @cached_property
    def clusters(self) -> Int64[np.ndarray, " t"]:
        """The cluster of similar sequences of each target."""
        return sequence_clusters([self.proteins[name] for name in self.names])

    @cached_property
    def _reference(self) -> tuple[list[Any], np.ndarray, Int64[np.ndarray, " t"]]:
        """The fingerprints of all actives, target after target, their SMILES, and where each target's begin."""
        smiles = [one for name in self.names for one in self.actives[name]]
        starts = np.cumsum([0, *(len(self.actives[name]) for name in self.names)])[:-1]
        return fingerprints(smiles), np.array(smiles, dtype=object), starts

    def similarities(self, smiles: Sequence[str], *, leave_out_itself: bool = False) -> Float[np.ndarray, "n t"]:
        """Return the Tanimoto similarity of each molecule to the nearest active of each target.

        Args:
            smiles: canonical SMILES of valid molecules.
            leave_out_itself: do not compare a molecule with itself, for actives that are judged by the others.
        """
        reference, known, starts = self._reference
        if not smiles:
            return np.zeros((0, len(self)))
        table = tanimoto(fingerprints(smiles), reference)
        if leave_out_itself:
            table[np.array(smiles, dtype=object)[:, None] == known] = 0.0
        return np.asarray(np.maximum.reduceat(table, starts, axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What a model was trained on: pairs of a protein and a ligand.

    Args:
        pairs: the ligands of each training protein, by its sequence; invalid SMILES are left out.
    """

    pairs: Mapping[str, Sequence[str]] = field(repr=False)

    @cached_property
    def by_protein(self) -> dict[str, tuple[str, ...]]:
        """The distinct canonical SMILES of each protein's ligands."""
        found: dict[str, tuple[str, ...]] = {}
        canonical = dict[str, str | None]()
        for protein, smiles in self.pairs.items():
            new = [one for one in dict.fromkeys(smiles) if one not in canonical]
            canonical |= dict(zip(new, canonical_smiles(new), strict=True))
            key = _NO_LETTER.sub("", protein.upper())
            own = (canonical[one] for one in smiles)
            found[key] = tuple(dict.fromkeys([*found.get(key, ()), *(one for one in own if one is not None)]))
        return {protein: ligands for protein, ligands in found.items() if ligands}

    @cached_property
    def ligands(self) -> tuple[str, ...]:
        """The distinct canonical SMILES of all ligands."""
        return tuple(dict.fromkeys(one for ligands in self.by_protein.values() for one in ligands))

    @cached_property
    def prints(self) -> dict[str, Any]:
        """The fingerprint of each ligand."""
        return dict(zip(self.ligands, fingerprints(self.ligands), strict=True))

    @cached_property
    def _index(self) -> KmerIndex:
        return KmerIndex(list(self.by_protein))

    def of(self, protein: str) -> tuple[str, ...]:
        """Return the ligands of a protein; none if it was not trained on."""
        return self.by_protein.get(protein, ())

    def of_nearest(self, protein: str) -> tuple[str, ...]:
        """Return the ligands of the training protein that shares most 3-mers with this one (Jaccard index), itself excluded."""
        known = list(self.by_protein)
        nearest = (known[i] for i in self._index.nearest(protein, 2, by=jaccard).tolist())
        return next((self.by_protein[other] for other in nearest if other != protein), ())

    def molecules(self, targets: Targets, counts: Mapping[str, int], *, seed: int = 0) -> dict[str, dict[str, list[str]]]:
        """Return the molecules of each null by target, as many as there are samples of it, or all that there are.

        Args:
            targets: the targets.
            counts: the number of molecules wanted for each target.
            seed: seed of the draws.
        """
        sources = {
            "training ligands of the target (copying)": lambda protein: self.of(protein),
            "random training ligands": lambda protein: self.ligands,
            "training ligands of the nearest other protein": lambda protein: self.of_nearest(protein),
        }
        return {
            null: {name: draw_some(source(targets.proteins[name]), counts.get(name, 0), seed, null, name) for name in targets.names}
            for null, source in sources.items()
        }
