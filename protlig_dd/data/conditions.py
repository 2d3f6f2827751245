"""Conditions as a person gives them: a sequence, a SMILES, or a file of many; a chain of a structure file."""

from __future__ import annotations

from pathlib import Path

from protlig_dd.data.molecules import read_molecules
from protlig_dd.data.sequences import read_sequences
from protlig_dd.errors import FormatError, require

_STRUCTURES = (".pdb", ".cif", ".mmcif", ".ent")


def read_proteins(text: str) -> list[tuple[str, str]]:
    """Return (name, sequence) of each protein that a text means.

    Args:
        text: a FASTA file, a PDB or mmCIF file (`file.pdb:A` for one chain), or a sequence; gaps `_` are kept.

    Raises:
        FormatError: if a file holds no protein, or lacks the chain.
    """
    path, _, chain = text.partition(":")
    if Path(path).suffix.lower() in _STRUCTURES or path.lower().endswith(tuple(s + ".gz" for s in _STRUCTURES)):
        return _chains(Path(path), chain)
    if _is_file(text):
        records = list(read_sequences(Path(text)))
        return [(record.name or f"{Path(text).stem}{i}", record.texts["protein"]) for i, record in enumerate(records)]
    return [("protein", text)]


def read_ligands(text: str) -> list[tuple[str, str]]:
    """Return (name, SMILES) of each ligand that a text means: a SMILES file, or a SMILES; gaps `_` are kept.

    Raises:
        FormatError: if a file holds no molecule.
    """
    if _is_file(text):
        records = list(read_molecules(Path(text)))
        return [(record.name or f"{Path(text).stem}{i}", record.texts["ligand"]) for i, record in enumerate(records)]
    return [("ligand", text)]


def _is_file(text: str) -> bool:
    return len(text) < 4096 and (Path(text).suffix != "" or "/" in text) and Path(text).is_file()


def _chains(path: Path, wanted: str) -> list[tuple[str, str]]:
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise FormatError(f"{path}: not readable as a structure ({error}); expected PDB or mmCIF") from error
    structure.setup_entities()
    found = {}
    for chain in structure[0] if len(structure) else []:
        letters = gemmi.one_letter_code([residue.name for residue in chain.get_polymer()]).upper()
        if letters:
            found[chain.name] = letters
    if wanted and wanted not in found:
        raise FormatError(f"{path}: found the chains {', '.join(found) or 'none'}, expected '{wanted}'")
    if not found:
        raise FormatError(f"{path}: found no protein chain; expected residues with coordinates")
    return [(f"{path.stem}_{name}", letters) for name, letters in found.items() if not wanted or name == wanted]
