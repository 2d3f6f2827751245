"""Conditions as a person gives them: a sequence, a SMILES, or a file of many; a chain of a structure file."""

from __future__ import annotations

import os
from pathlib import Path

from protlig_dd.data.readers.molecules import read_molecules
from protlig_dd.data.readers.sequences import read_fasta, read_sequences
from protlig_dd.errors import FormatError
from protlig_dd.structures.structure_io import is_structure_name, read_structure


def read_proteins(text: str) -> list[tuple[str, str]]:
    """Return (name, sequence) of each protein that a text means.

    Args:
        text: a FASTA file or table, a Foldseek database, a PDB or mmCIF file (`file.pdb:A` for one chain), or a sequence; gaps `_` are
            kept. What has a slash or a dot in it is the name of a file, never a sequence.

    Raises:
        FormatError: if there is no such file, or it holds no protein, or lacks the chain.
    """
    path, chain = _split_chain(text)
    if is_structure_name(path):
        return _chains(Path(path), chain)
    if _names_file(text, "a sequence"):
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


def read_structures(text: str) -> list[tuple[str, str]]:
    """Return (name, structure tokens) of each structure that a text means: a FASTA file of tokens, or tokens; gaps `_` are kept.

    Raises:
        FormatError: if there is no such file, or it is no FASTA.
    """
    if _names_file(text, "structure tokens"):
        records = list(read_fasta(Path(text)))
        return [(record.name or f"{Path(text).stem}{i}", record.texts["protein"]) for i, record in enumerate(records)]
    return [("structure", text)]


def _is_file(text: str) -> bool:
    return len(text) < 4096 and (Path(text).suffix != "" or "/" in text) and Path(text).is_file()


def _names_file(text: str, otherwise: str) -> bool:
    """Whether a text that holds no SMILES names a file: letters stand for residues, so a mistyped path must not pass as a sequence."""
    looks_like_path = "/" in text or "\\" in text or "." in text
    is_there = os.path.exists(text) or os.path.exists(
        f"{text}.index"
    )  # a database in parts has no file of its own name
    if not looks_like_path and (not is_there or (text.isalpha() and text.isupper())):
        return False
    if not is_there:
        raise FormatError(f"{text}: found no such file; check the path, or give {otherwise}")
    if os.path.isdir(text):
        raise FormatError(f"{text}: is a folder, expected a file or the path of a Foldseek database; name one in it")
    return True


def _split_chain(text: str) -> tuple[str, str]:
    """A structure file and the chain behind its colon, if any; a Windows drive's colon is part of the path."""
    if is_structure_name(text):
        return text, ""
    path, _, chain = text.rpartition(":")
    return (path, chain) if is_structure_name(path) else (text, "")


def _chains(path: Path, wanted: str) -> list[tuple[str, str]]:
    structure = read_structure(path)
    chains = (structure.chain(wanted),) if wanted else structure.chains
    return [(f"{path.stem}_{chain.name}", chain.sequence) for chain in chains]
