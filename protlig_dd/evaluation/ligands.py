"""Scores of generated ligands: validity, uniqueness, novelty, diversity, scaffolds, and the properties of each molecule.

Invalid strings are counted with their reason and left out; they never enter a mean as a zero or a worst value. `summary` gives every score
a null: tokens drawn from the training frequencies for validity, real molecules measured the same way for all others. RDKit is silenced
only inside `silent_rdkit`. Properties of one molecule are in `properties.py`, the demo's match of a ligand to its protein in
`motif_match.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.errors import ConfigError, nearest, require
from protlig_dd.evaluation.intervals import Estimate, Score, bootstrap_mean, pair_mean, wilson
from protlig_dd.evaluation.properties import PROPERTIES
from protlig_dd.evaluation.samples import Validity, subsample
from protlig_dd.tokens.ligand import tokenize_smiles

_MAX_DIVERSITY = 1000
_MAX_DESCRIBED = 5000  # molecules whose properties are averaged; QED takes about a millisecond each


def _chem() -> ModuleType:
    return require("rdkit.Chem", "judging molecules", extra="ligand")


@contextmanager
def silent_rdkit() -> Iterator[None]:
    """Keep RDKit's log quiet inside the block, and restore its level afterwards."""
    with require("rdkit.rdBase", "judging molecules", extra="ligand").BlockLogs():
        yield


@dataclass(frozen=True, kw_only=True)
class Molecules(Validity):
    """The valid molecules among some strings, and the count of the invalid ones.

    Attributes:
        smiles: canonical isomeric SMILES of the valid ones, in order, duplicates kept.
        mols: their RDKit molecules.
    """

    smiles: tuple[str, ...]
    mols: tuple[Any, ...]


def parse_molecule(smiles: str) -> tuple[Any | None, str]:
    """Return the sanitised RDKit molecule of a SMILES string and "", or None and the reason.

    The whole string must be the molecule: RDKit's reading of text after a space as a name is off. Reasons: "empty",
    "white space", "syntax", "valence", "aromaticity" (rings that cannot be kekulized), "other". Call it inside `silent_rdkit`.
    """
    chem = _chem()
    if not smiles:
        return None, "empty"
    if any(letter.isspace() for letter in smiles):
        return None, "white space"
    params = chem.SmilesParserParams()
    params.parseName = params.allowCXSMILES = False
    mol = chem.MolFromSmiles(smiles, params)
    if mol is not None:
        return (mol, "") if mol.GetNumAtoms() else (None, "empty")
    params.sanitize = False
    raw = chem.MolFromSmiles(smiles, params)
    if raw is None:
        return None, "syntax"
    flag = chem.SanitizeMol(raw, catchErrors=True)
    names = {chem.SANITIZE_PROPERTIES: "valence", chem.SANITIZE_KEKULIZE: "aromaticity"}
    return None, names.get(flag, "other")


def read_molecules(strings: Sequence[str]) -> Molecules:
    """Return the valid molecules of some SMILES strings, and how many were left out for which reason."""
    chem = _chem()
    with silent_rdkit():
        parsed = [parse_molecule(text) for text in strings]
        mols = tuple(mol for mol, _ in parsed if mol is not None)
        smiles = tuple(map(chem.MolToSmiles, mols))
    reasons = Counter(reason for mol, reason in parsed if mol is None)
    return Molecules(smiles=smiles, mols=mols, num_samples=len(strings), invalid=tuple(reasons.most_common()))


def canonical_smiles(strings: Sequence[str]) -> list[str | None]:
    """Return the canonical SMILES of each string, None for an invalid one, without keeping the molecules (about 5,000 a second)."""
    chem = _chem()
    with silent_rdkit():
        return [chem.MolToSmiles(mol) if (mol := parse_molecule(text)[0]) is not None else None for text in strings]


def validity(molecules: Molecules) -> Estimate:
    """Return the fraction of strings that parse and sanitise to at least one atom."""
    return wilson(molecules.num_valid, molecules.num_samples)


def uniqueness(molecules: Molecules) -> Estimate:
    """Return distinct molecules over valid ones. It falls with the number of samples: compare at equal `num`."""
    return wilson(len(set(molecules.smiles)), molecules.num_valid)


def novelty(molecules: Molecules, known: Set[str]) -> Estimate:
    """Return the fraction of the distinct valid molecules that are not in the canonical training SMILES `known`."""
    distinct = set(molecules.smiles)
    return wilson(len(distinct - known), len(distinct))


def exact_copy_rate(molecules: Molecules, known: Set[str]) -> Estimate:
    """Return the fraction of the valid samples, duplicates counted, that are training molecules."""
    return wilson(sum(smiles in known for smiles in molecules.smiles), molecules.num_valid)


def internal_diversity(molecules: Molecules, *, seed: int = 0, max_molecules: int = _MAX_DIVERSITY) -> Estimate:
    """Return 1 - mean Tanimoto similarity over pairs of different samples (Morgan, radius 2, 2048 bits).

    Duplicates count: a generator that repeats one molecule has diversity 0. Above `max_molecules`, a random subsample is used.
    MOSES' IntDiv also counts each molecule paired with itself, and so is lower by a factor 1 - 1/n.

    Source: Polykovskiy et al. 2020 (MOSES), section 4; Morgan fingerprints: Rogers and Hahn 2010.
    """
    generator = require("rdkit.Chem.rdFingerprintGenerator", "fingerprints", extra="ligand").GetMorganGenerator(radius=2, fpSize=2048)
    compare = require("rdkit.DataStructs", "fingerprints", extra="ligand").BulkTanimotoSimilarity
    prints = [generator.GetFingerprint(mol) for mol in subsample(molecules.mols, max_molecules, seed)]
    distances: Float[np.ndarray, "n n"] = np.zeros((len(prints), len(prints)))
    for i in range(1, len(prints)):
        distances[i, :i] = distances[:i, i] = 1 - np.asarray(compare(prints[i], prints[:i]))
    return pair_mean(distances)


def scaffolds(molecules: Molecules) -> list[str]:
    """Return the Bemis-Murcko scaffold of each valid molecule as canonical SMILES; an empty string for a molecule without rings.

    Source: Bemis and Murcko 1996, J. Med. Chem. 39, 2887, as implemented in RDKit (atoms and bond orders kept).
    """
    murcko = require("rdkit.Chem.Scaffolds.MurckoScaffold", "scaffolds", extra="ligand")
    chem = _chem()
    with silent_rdkit():
        return [chem.MolToSmiles(murcko.GetScaffoldForMol(mol)) for mol in molecules.mols]


def scaffold_count(molecules: Molecules) -> Estimate:
    """Return the number of distinct ring scaffolds; `num` is the number of molecules that have one."""
    rings = [s for s in scaffolds(molecules) if s]
    return Estimate.plain(len(set(rings)), len(rings))


def scaffold_uniqueness(molecules: Molecules) -> Estimate:
    """Return distinct scaffolds over the molecules that have a ring."""
    rings = [s for s in scaffolds(molecules) if s]
    return wilson(len(set(rings)), len(rings))


def draw_unigrams(training: Sequence[str], num: int, *, seed: int = 0) -> list[str]:
    """Return strings of tokens drawn independently from the training frequencies, with the lengths of training strings: a null for validity.

    Raises:
        FormatError: if a training string is not SMILES.
    """
    cut = [tokenize_smiles(smiles, where=f"training[{i}]") for i, smiles in enumerate(training)]
    counts = Counter(token for tokens in cut for token in tokens)
    symbols = np.array(list(counts), dtype=object)
    probs = np.array([counts[s] for s in symbols]) / counts.total()
    draws = np.random.default_rng(rng.key(seed, "unigram null"))
    lengths = draws.choice([len(tokens) for tokens in cut], size=num)
    return ["".join(draws.choice(symbols, size=length, p=probs)) for length in lengths]


def mean_property(molecules: Molecules, name: str, *, seed: int = 0) -> Estimate:
    """Return the mean of a property over the valid molecules, or over a random 5,000 of them if there are more.

    Raises:
        ConfigError: if there is no property of that name.
    """
    _check_property(name)
    with silent_rdkit():
        values = [PROPERTIES[name](mol) for mol in subsample(molecules.mols, _MAX_DESCRIBED, seed)]
    return bootstrap_mean(values, seed=seed)


def _check_property(name: str) -> None:
    if name not in PROPERTIES:
        raise ConfigError(f"property '{name}': unknown{nearest(name, PROPERTIES)}; expected one of: {', '.join(PROPERTIES)}")


def summary(
    samples: Sequence[str],
    training: Sequence[str],
    *,
    reference: Sequence[str] | None = None,
    properties: Sequence[str] = tuple(PROPERTIES),
    seed: int = 0,
) -> list[Score]:
    """Return every score of generated ligands, each with its null.

    Args:
        samples: generated SMILES, invalid ones included.
        training: training SMILES.
        reference: real molecules for the null, preferably from a test split. By default as many training rows as there are samples (half
            of the rows at most) are drawn, and their novelty and exact copies are measured against the remaining rows.
        properties: the `PROPERTIES` to average; omit "SA score" if RDKit lacks its data.
        seed: seed of the subsamples, the nulls and the bootstrap.

    Raises:
        ConfigError: if there are no samples, no valid training molecule, or a property is unknown.
        FormatError: if a training string cannot be cut into tokens.
        MissingDependencyError: if RDKit, or the data of the SA score, is absent.
    """
    if not samples:
        raise ConfigError("samples: found none, expected at least one SMILES; generate some first: protlig sample RUN")
    for name in properties:
        _check_property(name)
    canonical = canonical_smiles(training)
    known = {smiles for smiles in canonical if smiles is not None}
    if not known:
        raise ConfigError(f"training: found no valid molecule among {len(training)}, expected SMILES the run was trained on")
    rest, null_name = known, "reference"
    if reference is None:
        drawn = _draw_rows(len(training), len(samples), seed)
        reference = [smiles for smiles, taken in zip(training, drawn, strict=True) if taken]
        null_name = "training sample"
        rest = {smiles for smiles, taken in zip(canonical, drawn, strict=True) if smiles is not None and not taken}
    molecules, null = read_molecules(samples), read_molecules(reference)
    unigrams = read_molecules(draw_unigrams(training, min(len(samples), _MAX_DESCRIBED), seed=seed))
    left_out = molecules.describe_invalid()
    scores = [Score(name="validity", value=validity(molecules), null=validity(unigrams), null_name="unigrams", note=left_out)]
    for name, measure in _measures(properties, seed).items():
        scores.append(Score(name=name, value=measure(molecules, known), null=measure(null, rest), null_name=null_name))
    return scores


def _draw_rows(num_rows: int, num: int, seed: int) -> np.ndarray:
    """A boolean for each row: whether it is among the `num` drawn, at most half of the rows and at least one."""
    drawn = np.zeros(num_rows, dtype=bool)
    size = max(1, min(num, num_rows // 2))
    drawn[np.random.default_rng(rng.key(seed, "training sample")).choice(num_rows, size=size, replace=False)] = True
    return drawn


def _measures(properties: Sequence[str], seed: int) -> dict[str, Callable[[Molecules, Set[str]], Estimate]]:
    measures: dict[str, Callable[[Molecules, Set[str]], Estimate]] = {
        "uniqueness": lambda molecules, known: uniqueness(molecules),
        "novelty": novelty,
        "exact copies": exact_copy_rate,
        "internal diversity": lambda molecules, known: internal_diversity(molecules, seed=seed),
        "scaffolds": lambda molecules, known: scaffold_count(molecules),
        "unique scaffolds": lambda molecules, known: scaffold_uniqueness(molecules),
    }

    def mean_of(name: str) -> Callable[[Molecules, Set[str]], Estimate]:
        return lambda molecules, known: mean_property(molecules, name, seed=seed)

    return measures | {name: mean_of(name) for name in properties}
