"""Molecules as SMILES: one a line, or a table with a SMILES column; and the policy for stereo, charges and salts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from protlig_dd.config import settings
from protlig_dd.data.readers.complexes import Columns, read_pairs
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError, require

_HEADERS = {"smiles", "canonical_smiles", "isomeric_smiles", "isosmiles"}


def read_smiles(path: Path) -> Iterator[Record]:
    """Yield the molecules of a SMILES file, lazily: "SMILES", "SMILES name", or "number SMILES" (PubChem's CID lists).

    A header line "smiles ..." is skipped, and so are blank lines and lines that begin with "#".

    Raises:
        FormatError: if the file is not text or holds no molecule.
    """
    count = 0
    for number, line in read_lines(path):
        words = line.split(None, 1)
        if not words or line.startswith("#") or (count == 0 and words[0].lower() in _HEADERS):
            continue
        count += 1
        rest = words[1].strip() if len(words) > 1 else ""
        smiles, name = (rest, words[0]) if rest and words[0].isdigit() else (words[0], rest)
        yield Record(where=f"{path}:{number}", texts={"ligand": smiles.split()[0]}, name=name)
    if count == 0:
        raise FormatError(f"{path}: found no molecule, expected one SMILES a line; check how it was made or downloaded")


def read_molecules(path: Path, columns: Columns | None = None) -> Iterator[Record]:
    """Yield the molecules of a SMILES file, or of a table with a SMILES column, by the suffix of the name."""
    if data_suffix(path) in TABLE_SUFFIXES:
        for record in read_pairs(path, columns, needed=("ligand",)):
            yield Record(
                where=record.where,
                texts={k: v for k, v in record.texts.items() if k == "ligand"},
                split=record.split,
                name=record.name,
            )
    else:
        yield from read_smiles(path)


@settings
class MoleculePolicy:
    """What is done to a SMILES before it becomes tokens. The default keeps every string as it stands and needs no RDKit.

    Args:
        stereo: "keep", or "strip" all stereochemistry.
        charges: "keep", or "neutralize" what can be (RDKit's Uncharger).
        salts: "keep" all fragments, "strip" all but the largest, or "refuse" a SMILES of several.
        canonical: whether to rewrite every SMILES in RDKit's canonical form.
        validate: whether a SMILES that RDKit cannot read is an error (it is one anyway if anything above changes the molecule).
    """

    stereo: Literal["keep", "strip"] = "keep"
    charges: Literal["keep", "neutralize"] = "keep"
    salts: Literal["keep", "strip", "refuse"] = "keep"
    canonical: bool = False
    validate: bool = False

    @property
    def changes(self) -> bool:
        """Whether SMILES are rewritten."""
        return self.canonical or (self.stereo, self.charges) != ("keep", "keep") or self.salts == "strip"

    @cached_property
    def _chem(self) -> ModuleType:
        return require("rdkit.Chem", "checking or changing molecules", extra="ligand")

    def apply(self, smiles: str, *, where: str) -> str:
        """Return the SMILES under the policy.

        Raises:
            FormatError: for several fragments where they are refused, or for what RDKit cannot read.
        """
        if self.salts == "refuse" and "." in smiles:
            raise FormatError(
                f"{where}: '{smiles}' has several fragments; set data.molecules.salts=strip or keep, or remove the record"
            )
        if not (self.changes or self.validate):
            return smiles
        base = require("rdkit.rdBase", "checking or changing molecules", extra="ligand")
        with base.BlockLogs():
            molecule = self._chem.MolFromSmiles(smiles)
            if molecule is None:
                raise FormatError(
                    f"{where}: '{smiles}' is not a valid molecule for RDKit; correct or remove the record"
                )
            return self._rewrite(molecule) if self.changes else smiles

    def _rewrite(self, molecule: Any) -> str:
        if self.salts == "strip" or self.charges == "neutralize":
            standardize = require("rdkit.Chem.MolStandardize.rdMolStandardize", "changing molecules", extra="ligand")
            if self.salts == "strip":
                molecule = standardize.LargestFragmentChooser().choose(molecule)
            if self.charges == "neutralize":
                molecule = standardize.Uncharger().uncharge(molecule)
        if self.stereo == "strip":
            self._chem.RemoveStereochemistry(molecule)
        return str(self._chem.MolToSmiles(molecule))
