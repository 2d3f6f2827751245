"""Molecules as SMILES: one a line, or a table with a SMILES column; and the policy for stereochemistry, charges and salts."""

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
        FormatError: if the file is not text or has no molecule.
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
    """Yield the molecules of a SMILES file or, by the suffix of its name, of a table with a SMILES column."""
    if data_suffix(path) in TABLE_SUFFIXES:
        for record in read_pairs(path, columns, needed=("ligand",)):
            texts = {track: text for track, text in record.texts.items() if track == "ligand"}
            yield Record(where=record.where, texts=texts, split=record.split, name=record.name)
    else:
        yield from read_smiles(path)


@settings
class MoleculePolicy:
    """How SMILES are changed before they are tokenized. The default keeps every string unchanged and needs no RDKit.

    Args:
        stereo: "keep", or "strip" all stereochemistry.
        charges: "keep", or "neutralize" where possible (RDKit's Uncharger).
        salts: "keep" all fragments, "strip" all but the largest, or "refuse" SMILES with several.
        canonical: rewrite every SMILES in RDKit's canonical form.
        validate: raise an error for SMILES that RDKit cannot read (always done if an option above changes the molecule).
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
        """Return the SMILES after applying the policy.

        Raises:
            FormatError: for several fragments with salts="refuse", or a SMILES that RDKit cannot read.
        """
        if self.salts == "refuse" and "." in smiles:
            raise FormatError(f"{where}: '{smiles}' has several fragments; set data.molecules.salts=strip or keep, or remove the record")
        if not (self.changes or self.validate):
            return smiles
        base = require("rdkit.rdBase", "checking or changing molecules", extra="ligand")
        with base.BlockLogs():
            molecule = self._chem.MolFromSmiles(smiles)
            if molecule is None:
                raise FormatError(f"{where}: '{smiles}' is not a valid molecule for RDKit; correct or remove the record")
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
