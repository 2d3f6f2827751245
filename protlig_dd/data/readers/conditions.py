"""Conditions given on the command line: a sequence, a SMILES string, a file of many, or a chain of a structure file."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from protlig_dd.data.readers.complexes import without_extension
from protlig_dd.data.readers.molecules import read_molecules
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import read_fasta, read_sequences
from protlig_dd.errors import FormatError, one_line
from protlig_dd.structures.structure_io import BLANK, is_structure_name, read_structure
from protlig_dd.tokens.ligand import check_atom
from protlig_dd.tokens.protein import REPLACED, looks_like_nucleotides
from protlig_dd.tokens.tracks import Track

log = logging.getLogger(__name__)


def read_proteins(text: str) -> list[tuple[str, str]]:
    """Return (name, sequence) of each protein that `text` refers to.

    Args:
        text: a FASTA file or table, a Foldseek database, a PDB or mmCIF file (`file.pdb:A` for one chain, `file.pdb:` for the one without
            a name), or a sequence; gaps `_` are kept. A text with a slash or a dot is a file name, never a sequence.

    Raises:
        FormatError: if the file does not exist, has no protein, lacks the chain, or has a record without a protein.
    """
    path, chain = _split_chain(text)
    if is_structure_name(path):
        return _chains(Path(path), chain)
    if _names_file(text, "a sequence"):
        return _named(text, read_sequences(Path(text)), "protein")
    return [("protein", text)]


def read_ligands(text: str) -> list[tuple[str, str]]:
    """Return (name, SMILES) of each ligand that `text` refers to: a SMILES file, or a SMILES string; gaps `_` are kept.

    Raises:
        FormatError: if a file has no molecule or a record without one, or the text does not begin with an atom.
    """
    if len(text) < 4096 and (Path(text).suffix != "" or "/" in text) and Path(text).is_file():
        return _named(text, read_molecules(Path(text)), "ligand")
    smiles = without_extension(text)
    check_atom(smiles.lstrip("_"), where="--ligand")
    if smiles != text:
        log.warning("--ligand: the extension of CXSMILES, behind the blank, is cut off")
    return [("ligand", smiles)]


def read_structures(text: str) -> list[tuple[str, str]]:
    """Return (name, structure tokens) of each structure that `text` refers to: a FASTA file of tokens, or tokens; gaps `_` are kept.

    Raises:
        FormatError: if the file does not exist, or is not FASTA.
    """
    if _names_file(text, "structure tokens"):
        return _named(text, read_fasta(Path(text), track="structure"), "structure")
    return [("structure", text)]


def tell_proteins(proteins: Sequence[tuple[str, str]], track: Track) -> None:
    """Log, in a line each, which letters of given proteins are read as another one, and which proteins look like nucleic acids."""
    replaced, names = Counter[str](), list[str]()
    if track.replaced is not None:
        for name, text in proteins:
            found = track.replaced(text.replace("_", ""))
            replaced += found
            names += [name] if found else []
    if replaced:
        letters = ", ".join(f"{how} ({count})" for how, count in replaced.most_common())
        log.warning("%s%s; in %s", REPLACED, letters, _some(names))
    if odd := [name for name, text in proteins if looks_like_nucleotides(text.replace("_", ""))]:
        log.warning("only letters of nucleotides, read as a protein all the same: %s", _some(odd))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _named(file: str, records: Iterable[Record], track: str) -> list[tuple[str, str]]:
    """The records' names, or the file's stem and a number, with their texts; a record without a text is an error.

    Names become titles, file names and lines of logs.
    """
    given, remarks, changed = list[tuple[str, str]](), Counter[str](), list[str]()
    for i, record in enumerate(records):
        if record.problem is not None:
            raise FormatError(record.problem[1])
        text = record.texts.get(track, "")
        if not text.strip():
            raise FormatError(f"{record.where}: found no {track}, expected one; fill the cell, or remove the record")
        if track == "ligand":
            check_atom(text.lstrip("_"), where=record.where)
        name = one_line(record.name or f"{Path(file).stem}{i}")
        changed += [name] if record.name and name != record.name else []
        given.append((name, text))
        remarks.update(record.remarks)
    for remark, count in remarks.items():
        log.warning("%s: %d records with: %s", file, count, remark)
    if changed:
        told = "%s: %d names have line breaks or other control characters, which become '_': %s"
        log.warning(told, file, len(changed), _some(changed))
    return given


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


def _split_chain(text: str) -> tuple[str, str | None]:
    """A structure file and the chain after its colon, if any; the colon of a Windows drive is part of the path."""
    if is_structure_name(text):
        return text, None
    path, _, chain = text.rpartition(":")
    return (path, chain) if is_structure_name(path) else (text, None)


def _chains(path: Path, wanted: str | None) -> list[tuple[str, str]]:
    structure = read_structure(path)
    chains = structure.chains if wanted is None else (structure.chain(wanted),)
    named, names = list[tuple[str, str]](), {chain.name for chain in structure.chains}
    for chain in chains:
        unknown = Counter(name for name, letter in zip(chain.residue_names, chain.sequence, strict=True) if letter == "X")
        if unknown:
            shown = ", ".join(f"{name} {count}" for name, count in unknown.most_common(5)) + ", ..." * (len(unknown) > 5)
            where = f"{path}: chain {chain.name or BLANK}"
            log.warning("%s: %d of %d residues are no known amino acids (%s): X", where, unknown.total(), len(chain), shown)
        label = chain.label if chain.label not in names else f"{chain.name}_{chain.label}"
        own = chain.name if chain is structure.chain(chain.name) else label
        named.append((one_line(f"{path.stem}_{own}"), chain.sequence))
    return named
