"""Molecules as SMILES: one a line, or a table with a SMILES column; and the policy for stereochemistry, charges and salts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from protlig_dd.config import settings
from protlig_dd.data.readers.complexes import EXTENSION_CUT, Columns, read_pairs, texts_only
from protlig_dd.data.readers.files import MAX_RECORD, data_suffix, read_lines
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError, require
from protlig_dd.tokens.ligand import check_atom

_SDF = re.compile(r"M  END\s*$|\$\$\$\$\s*$|.{33}.* V[23]000\s*$")
_BY_SUFFIX = {
    **dict.fromkeys((".sdf", ".sd"), "SDF"),
    ".mol": "a molfile",
    ".mol2": "MOL2",
    ".xyz": "XYZ",
    ".cml": "CML",
    ".mae": "Maestro's format",
    ".inchi": "InChI",
    **dict.fromkeys((".pdb", ".pdbqt", ".ent", ".cif", ".mmcif"), "a structure"),
}
_EXTENSION = re.compile(r"^\|[^|]*\|\s*")
_HEADERS = {"smiles", "canonical_smiles", "isomeric_smiles", "isosmiles"}


def read_smiles(path: Path, *, max_record: int = MAX_RECORD) -> Iterator[Record]:
    """Yield the molecules of a SMILES file, lazily: "SMILES", "SMILES name", or "number SMILES" (PubChem's CID lists).

    A header line "smiles ..." is skipped, and so are blank lines and lines that begin with "#". An extension of CXSMILES (`|...|`) is cut
    off.

    Raises:
        FormatError: if the file is not text, has no molecule, or is of another format of molecules; for a line that is too long.
    """
    count = 0
    _refuse_format(path, _BY_SUFFIX.get(data_suffix(path), ""))
    for number, line in read_lines(path, longest=max_record):
        _refuse_format(path, "SDF" if _SDF.match(line) else "MOL2" if line.startswith("@<TRIPOS>") else "")
        words = line.split(None, 1)
        if not words or line.startswith("#") or (count == 0 and words[0].lower() in _HEADERS):
            continue
        if count == 0 and line.strip().isdecimal():
            _refuse_format(path, "XYZ")
        count += 1
        smiles, rest = words[0], words[1].strip() if len(words) > 1 else ""
        numbered = smiles if rest and smiles.isdigit() else ""
        if numbered:
            smiles, rest = (*rest.split(None, 1), "")[:2]
        cut = _EXTENSION.sub("", rest)
        remarks = (EXTENSION_CUT,) if cut != rest else ()
        yield Record(where=f"{path}:{number}", texts={"ligand": smiles}, name=numbered or cut, remarks=remarks)
    if count == 0:
        raise FormatError(f"{path}: found no molecule, expected one SMILES a line; check how it was made or downloaded")


def _refuse_format(path: Path, name: str) -> None:
    """Raise an error if a format is named: the one that the file has instead of SMILES."""
    if name:
        plain = Path(path).name.removesuffix(".gz").removesuffix(".zst")
        raise FormatError(
            f"{path}: found {name}, expected SMILES, one a line; convert it, for example: obabel {plain} -O {Path(plain).stem}.smi"
        )


def read_molecules(path: Path, columns: Columns | None = None, *, max_record: int = MAX_RECORD) -> Iterator[Record]:
    """Yield the molecules of a SMILES file or, by the suffix of its name, of a table with a SMILES column."""
    if data_suffix(path) in TABLE_SUFFIXES:
        yield from read_pairs(path, texts_only(columns, "ligand"), needed=("ligand",), max_record=max_record)
    else:
        yield from read_smiles(path, max_record=max_record)


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
            FormatError: for a text that does not begin with an atom, several fragments with salts="refuse", or a SMILES that RDKit cannot read.
        """
        check_atom(smiles, where=where)
        if self.salts == "refuse" and "." in smiles:
            raise FormatError(f"{where}: '{smiles}' has several fragments; set data.molecules.salts=strip or keep, or remove the record")
        if not (self.changes or self.validate):
            return smiles
        changed = _changed(self, smiles)
        if changed is None:
            raise FormatError(f"{where}: '{smiles}' is not a valid molecule for RDKit; correct or remove the record")
        return changed

    def changed(self, smiles: str) -> str | None:
        """Return the SMILES after the changes, or None if RDKit cannot read it."""
        base = require("rdkit.rdBase", "checking or changing molecules", extra="ligand")
        with base.BlockLogs():
            molecule = self._chem.MolFromSmiles(smiles)
            if molecule is None:
                return None
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


@lru_cache(maxsize=1 << 16)
def _changed(policy: MoleculePolicy, smiles: str) -> str | None:
    """`MoleculePolicy.changed`; a table of pairs holds each molecule many times."""
    return policy.changed(smiles)
