"""PDB and mmCIF files read by gemmi, with a clear error for anything else, and what gemmi needs to tell their residues apart."""

from __future__ import annotations

import gzip
import logging
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protlig_dd.errors import FormatError, require
from protlig_dd.structures.residue_letters import parent_letter

_logger = logging.getLogger(__name__)
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_UNKNOWN = frozenset(".?")


def load_structure(path: Path, *, split_at_ter: bool = False) -> Any:
    """Return a PDB or mmCIF file as a gemmi.Structure, gzipped or not, with any suffix.

    If the authors' numbers of an mmCIF file name several residues alike, gemmi would put those together: residues and chains then have
    mmCIF's own numbers and names (label_seq_id, label_asym_id), and a warning says so.

    Args:
        path: the file.
        split_at_ter: whether a PDB chain whose amino acids go on behind TER becomes several chains of one name.

    Raises:
        FormatError: if the file does not exist, is not a structure, has no atoms, or names that are no text.
        MissingDependencyError: without gemmi.
    """
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    if not path.is_file():
        raise FormatError(f"{path}: found no such file, expected a PDB or mmCIF file; check the path")
    with path.open("rb") as file:
        if file.read(len(_ZSTD)) == _ZSTD:
            raise FormatError(f"{path}: is compressed by Zstandard, expected a plain or gzipped file; unpack it with zstd -d")
    with readable_text(path), _readable_name(path) as name:
        try:
            found = _read(gemmi, path, name)
            if split_at_ter and found.input_format == gemmi.CoorFormat.Pdb and _goes_on_after_ter(path):
                found = gemmi.read_pdb(name, split_chain_on_ter=True)
        except UnicodeDecodeError:
            raise
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FormatError(f"{path}: not readable as a structure ({reason.replace(name, str(path))}); expected PDB or mmCIF") from error
    if not len(found) or not any(len(chain) for chain in found[0]):
        raise FormatError(f"{path}: found no atoms, expected a PDB or mmCIF file with coordinates")
    return found


def _read(gemmi: Any, path: Path, name: str) -> Any:
    document = gemmi.cif.Document()
    found = gemmi.read_structure(name, format=gemmi.CoorFormat.Detect, save_doc=document)
    for block in document:
        shared = _shared_number(block)
        if shared:
            _logger.warning("%s: found %s; residues and chains are told apart by label_seq_id and label_asym_id instead", path, shared)
            for tag in ("auth_seq_id", "auth_asym_id", "pdbx_PDB_ins_code"):
                column = block.find_loop(f"_atom_site.{tag}")
                if column:
                    column.get_loop().remove_column(f"_atom_site.{tag}")
            found = gemmi.make_structure_from_block(block)
            found.merge_chain_parts()
        if shared is not None:
            break  # the block with the atoms
    return found


def _shared_number(block: Any) -> str | None:
    """Words for an author's number that several residues of polymers have, "" if there is none; None for a block without atoms."""
    tags = ("label_asym_id", "label_seq_id", "auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code")
    asym, seq, author, number, insertion = (list(block.find_loop(f"_atom_site.{tag}")) for tag in tags)
    if not seq or not asym or not number:
        return "" if seq or number else None
    own = dict.fromkeys(zip(asym, seq, author or asym, number, insertion or number, strict=True))
    named: dict[tuple[str, ...], tuple[str, ...]] = {}
    for label_asym, label_seq, *name in own:
        first = named.setdefault(tuple(name), (label_asym, label_seq)) if label_seq not in _UNKNOWN else (label_asym, label_seq)
        if first != (label_asym, label_seq):
            return f"several residues with the authors' number {name[1]} in chain {name[0]}"
    return ""


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked if it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    with gzip.open(path) if packed else path.open("rb") as lines:
        yield from lines


def _goes_on_after_ter(path: Path) -> bool:
    """Whether a chain of a PDB file has ATOM records of amino acids behind its TER: two chains of one name, or of none."""
    ended, chain = set[bytes](), b""
    for line in _lines(path):
        if line.startswith(b"TER"):
            ended.add(chain)
        elif line.startswith(b"MODEL"):
            ended.clear()
        elif line.startswith(b"ATOM"):
            chain = line[20:22].strip()
            if chain in ended and parent_letter(line[17:20].decode("ascii", "replace").strip()) != "X":
                return True
    return False


def info_of(found: Any, item: str) -> str:
    """Return what a file says of itself, such as "_struct.title", on one line; "" if nothing, or no text (it is only reported)."""
    try:
        return " ".join(found.info[item].split()) if item in found.info else ""
    except UnicodeDecodeError:
        return ""


@contextmanager
def readable_text(path: Path) -> Iterator[None]:
    """Turn the error of a name that is no text, which gemmi raises when the name is asked for, into one with its line.

    Raises:
        FormatError: for such a name.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        expected = "expected names in UTF-8; correct or remove the line"
        for number, line in enumerate(_lines(path), 1):
            if line.startswith((b"ATOM", b"HETATM")) and not _is_text(line):
                raise FormatError(f"{path}:{number}: found {line[:32]!r}, which is no text, {expected}") from error
        raise FormatError(f"{path}: found a name that is no text ({error.object[:32]!r}), {expected}") from error


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _readable_name(path: Path) -> Iterator[str]:
    """A valid text name for the file, since gemmi accepts no other: a name with other bytes gets a symbolic link."""
    if os.fsencode(path) == str(path).encode(errors="replace"):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"structure{path.suffix}"
        os.symlink(path.resolve(), link)
        yield str(link)


def are_alternatives(first: Any, second: Any) -> bool:
    """Return whether two residues that follow each other are alternatives of one place, and not two places under one number."""
    if first.seqid != second.seqid or first.label_seq != second.label_seq:
        return False
    return first.label_seq is not None or any(atom.altloc != "\0" for residue in (first, second) for atom in residue)


def best_conformer(residue: Any, names: Collection[str], where: str) -> dict[str, Any]:
    """Return the named atoms of the residue's conformer with the highest occupancy, and those that all conformers share.

    Raises:
        FormatError: if an atom is there twice, since gemmi puts residues of one number and name together; `where` begins the message.
    """
    occupancy: dict[str, float] = {}
    chosen: dict[str, Any] = {}
    for atom in residue:
        if atom.altloc != "\0" and atom.name in names:
            occupancy[atom.altloc] = occupancy.get(atom.altloc, 0.0) + atom.occ
    best = max(occupancy, key=lambda altloc: occupancy[altloc]) if occupancy else "\0"
    for atom in sorted(residue, key=lambda a: (a.altloc == best, a.altloc == "\0", a.occ)):
        if atom.name in names and (atom.name != "CA" or atom.element.name != "Ca"):
            if atom.altloc == "\0" and atom.name in chosen and chosen[atom.name].altloc == "\0":
                raise FormatError(
                    f"{where}: found the atom {atom.name} of residue {residue.seqid} ({residue.name}) twice, not as alternatives; "
                    "give each residue a number of its own, and end each chain with TER"
                )
            chosen[atom.name] = atom
    return chosen
