"""Properties of one molecule, by RDKit: QED, SA score, logP, weight and the counts of Lipinski's rule.

Each function takes an RDKit molecule and returns a float, so it can also be used as an objective; `PROPERTIES` lists them all.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import pickle
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from protlig_dd.errors import FormatError, MissingDependencyError, require


def _rdkit(module: str) -> ModuleType:
    return require(f"rdkit.Chem.{module}", "measuring molecules", extra="ligand")


def qed(mol: Any) -> float:
    """Return the quantitative estimate of drug-likeness, 0 to 1 (aspirin 0.55).

    Source: Bickerton et al. 2012, Nature Chemistry 4, 90, in RDKit's default weighting.
    """
    return float(_rdkit("QED").qed(mol))


def sa_score(mol: Any) -> float:
    """Return the synthetic accessibility score, 1 (easy) to 10 (hard) (aspirin 1.58).

    Raises:
        MissingDependencyError: if this RDKit came without its contributed SA_Score folder.

    Source: Ertl and Schuffenhauer 2009, J. Cheminformatics 1, 8; Contrib/SA_Score of RDKit, unchanged.
    """
    return float(_sascorer(Path(require("rdkit.RDConfig", "the SA score", extra="ligand").RDContribDir)).calculateScore(mol))


def log_p(mol: Any) -> float:
    """Return the octanol-water partition coefficient log P (aspirin 1.31).

    Source: Wildman and Crippen 1999, J. Chem. Inf. Comput. Sci. 39, 868.
    """
    return float(_rdkit("Crippen").MolLogP(mol))


def molecular_weight(mol: Any) -> float:
    """Return the average molecular weight in daltons (aspirin 180.16)."""
    return float(_rdkit("Descriptors").MolWt(mol))


def hydrogen_donors(mol: Any) -> float:
    """Return the number of hydrogen-bond donors (aspirin 1)."""
    return float(_rdkit("rdMolDescriptors").CalcNumHBD(mol))


def hydrogen_acceptors(mol: Any) -> float:
    """Return the number of hydrogen-bond acceptors by RDKit's pattern, which is not Lipinski's count of N and O (aspirin 3, not 4)."""
    return float(_rdkit("rdMolDescriptors").CalcNumHBA(mol))


def polar_surface(mol: Any) -> float:
    """Return the topological polar surface area in square angstrom (aspirin 63.6).

    Source: Ertl, Rohde and Selzer 2000, J. Med. Chem. 43, 3714.
    """
    return float(_rdkit("rdMolDescriptors").CalcTPSA(mol))


def rotatable_bonds(mol: Any) -> float:
    """Return the number of rotatable bonds, amide and ester bonds not counted (RDKit's strict definition; aspirin 2)."""
    return float(_rdkit("rdMolDescriptors").CalcNumRotatableBonds(mol))


def lipinski_violations(mol: Any) -> float:
    """Return how many of Lipinski's four limits are exceeded: weight 500, log P 5, 5 donors, 10 acceptors.

    Source: Lipinski et al. 1997, Adv. Drug Deliv. Rev. 23, 3; donors and acceptors as counted above.
    """
    limits = ((molecular_weight, 500), (log_p, 5), (hydrogen_donors, 5), (hydrogen_acceptors, 10))
    return float(sum(measure(mol) > limit for measure, limit in limits))


PROPERTIES: Mapping[str, Callable[[Any], float]] = MappingProxyType(
    {
        "QED": qed,
        "SA score": sa_score,
        "logP": log_p,
        "MW": molecular_weight,
        "HBD": hydrogen_donors,
        "HBA": hydrogen_acceptors,
        "TPSA": polar_surface,
        "rotatable bonds": rotatable_bonds,
        "Lipinski violations": lipinski_violations,
    }
)
"""Every property by the name that reports print."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists and numbers; a pickle that calls anything is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to load '{module}.{name}', expected lists and numbers only")


@functools.cache
def _sascorer(contrib: Path) -> ModuleType:
    """Return RDKit's contributed scorer, run from its file, its table read by an unpickler that cannot call anything."""
    code, table = contrib / "SA_Score" / "sascorer.py", contrib / "SA_Score" / "fpscores.pkl.gz"
    for path in (code, table):
        if not path.is_file():
            raise MissingDependencyError(
                f"the SA score needs {path.name} of RDKit's Contrib/SA_Score folder, found none in '{path.parent}' (some distributions "
                f"leave Contrib out); install RDKit's own wheel with: pip install 'protlig_dd[ligand]', or leave 'SA score' out of properties"
            )
    spec = importlib.util.spec_from_file_location("protlig_dd_sascorer", code)
    assert spec is not None, code
    assert spec.loader is not None, code
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._fscores = _read_fragment_scores(table)  # type: ignore[attr-defined]  # else it unpickles the table itself, unrestricted
    return module


def _read_fragment_scores(table: Path) -> dict[int, float]:
    """Return the score of each Morgan fragment; the file is a gzipped pickle of rows [score, fragment, fragment, ...].

    Raises:
        FormatError: if the file is damaged or contains anything but lists and numbers.
    """
    try:
        with gzip.open(table) as file:
            rows = _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, OSError, zlib.error) as error:
        raise FormatError(f"{table}: not readable as SA fragment scores: {error}; reinstall RDKit") from error
    return {fragment: float(row[0]) for row in rows for fragment in row[1:]}
