"""Conditions given on the command line: a sequence, a SMILES string, a file of many, or a chain of a structure file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from protlig_dd.data.readers.molecules import read_molecules
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import read_fasta, read_sequences
from protlig_dd.errors import FormatError
from protlig_dd.structures.structure_io import is_structure_name, read_structure


def read_proteins(text: str) -> list[tuple[str, str]]:
    """Return (name, sequence) of each protein that `text` refers to.

    Args:
        text: a FASTA file or table, a Foldseek database, a PDB or mmCIF file (`file.pdb:A` for one chain), or a sequence; gaps `_` are
            kept. A text with a slash or a dot is a file name, never a sequence.

    Raises:
        FormatError: if the file does not exist, has no protein, or lacks the chain.
    """
    path, chain = _split_chain(text)
    if is_structure_name(path):
        structure = read_structure(path)
        chains = (structure.chain(chain),) if chain else structure.chains
        return [(f"{Path(path).stem}_{one.name}", one.sequence) for one in chains]
    if _names_file(text, "a sequence"):
        return _named(text, read_sequences(Path(text)), "protein")
    return [("protein", text)]


def read_ligands(text: str) -> list[tuple[str, str]]:
    """Return (name, SMILES) of each ligand that `text` refers to: a SMILES file, or a SMILES string; gaps `_` are kept.

    Raises:
        FormatError: if a file has no molecule.
    """
    if len(text) < 4096 and (Path(text).suffix != "" or "/" in text) and Path(text).is_file():
        return _named(text, read_molecules(Path(text)), "ligand")
    return [("ligand", text)]


def read_structures(text: str) -> list[tuple[str, str]]:
    """Return (name, structure tokens) of each structure that `text` refers to: a FASTA file of tokens, or tokens; gaps `_` are kept.

    Raises:
        FormatError: if the file does not exist, or is not FASTA.
    """
    if _names_file(text, "structure tokens"):
        return _named(text, read_fasta(Path(text), track="structure"), "structure")
    return [("structure", text)]


def _named(file: str, records: Iterable[Record], track: str) -> list[tuple[str, str]]:
    """The records' names, or the file's stem and a number, with their texts."""
    return [(record.name or f"{Path(file).stem}{i}", record.texts[track]) for i, record in enumerate(records)]


def _names_file(text: str, otherwise: str) -> bool:
    """Whether a text other than SMILES names a file: a mistyped path must not pass as a sequence."""
    looks_like_path = "/" in text or "\\" in text or "." in text
    is_there = any(map(os.path.exists, (text, f"{text}.index")))  # a database in parts has no file of its own name
    if not looks_like_path and (not is_there or (text.isalpha() and text.isupper())):
        return False
    if not is_there:
        raise FormatError(f"{text}: found no such file; check the path, or give {otherwise}")
    if os.path.isdir(text):
        raise FormatError(f"{text}: is a folder, expected a file or the path of a Foldseek database; name one in it")
    return True


def _split_chain(text: str) -> tuple[str, str]:
    """A structure file and the chain after its colon, if any; the colon of a Windows drive is part of the path."""
    if is_structure_name(text):
        return text, ""
    path, _, chain = text.rpartition(":")
    return (path, chain) if is_structure_name(path) else (text, "")
