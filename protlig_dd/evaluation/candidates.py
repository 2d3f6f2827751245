"""What to know about a molecule that a search proposes: structural alerts, and its similarity to the lead.

An objective such as QED knows nothing of stability or reactivity. An alert is a reason to look, no verdict.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from protlig_dd.errors import require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit

_STRAINED = {
    "cyclobutadiene": "[#6]1=[#6][#6]=,:[#6]1",
    "double bond in a ring of three": "[r3]=[r3]",
    "triple bond in a small ring": "[r3,r4,r5,r6,r7]#[r3,r4,r5,r6,r7]",
    "cumulated double bonds in a small ring": "[*;r3,r4,r5,r6,r7]=[*;r3,r4,r5,r6,r7]=[*;r3,r4,r5,r6,r7]",
}
"""Rings that no published catalogue has, since nobody would make them; a generator does."""


@functools.cache
def _catalogue() -> Any:
    filters = require("rdkit.Chem.FilterCatalog", "structural alerts", extra="ligand")
    wanted = filters.FilterCatalogParams()
    for name in ("BRENK", "PAINS"):
        wanted.AddCatalog(getattr(filters.FilterCatalogParams.FilterCatalogs, name))
    return filters.FilterCatalog(wanted)


@functools.cache
def _strained() -> dict[str, Any]:
    chem = require("rdkit.Chem", "structural alerts", extra="ligand")
    return {name: chem.MolFromSmarts(smarts) for name, smarts in _STRAINED.items()}


def structural_alerts(smiles: str) -> tuple[str, ...]:
    """Return the names of the alerts of a molecule; "no valid molecule" for a text that is none.

    Source: Brenk et al. 2008 (unwanted groups) and Baell and Holloway 2010 (PAINS), as in RDKit's FilterCatalog; and strained small rings.
    """
    with silent_rdkit():
        molecule = parse_molecule(smiles)[0]
        if molecule is None:
            return ("no valid molecule",)
        known = [match.GetDescription() for match in _catalogue().GetMatches(molecule)]
        own = [name for name, pattern in _strained().items() if molecule.HasSubstructMatch(pattern)]
    return tuple(dict.fromkeys([*own, *known]))


def similarities(lead: str, others: Sequence[str]) -> list[float]:
    """Return the Tanimoto similarity of molecules to a lead (Morgan, radius 2, 2048 bits); 0 for a text that is no molecule."""
    generator = require("rdkit.Chem.rdFingerprintGenerator", "fingerprints", extra="ligand").GetMorganGenerator(radius=2, fpSize=2048)
    compare = require("rdkit.DataStructs", "fingerprints", extra="ligand").TanimotoSimilarity
    with silent_rdkit():
        molecules = [parse_molecule(text)[0] for text in (lead, *others)]
        first, *rest = [None if one is None else generator.GetFingerprint(one) for one in molecules]
    return [0.0 if first is None or one is None else float(compare(first, one)) for one in rest]
