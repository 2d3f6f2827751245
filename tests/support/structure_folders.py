"""Folders of small structure files, sound and odd."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.support.backbones import backbone, chain_lines, write_lines


def helix_file(path: Path, sequence: str = "AKGSLAKGSLAK", **more: object) -> Path:
    return write_lines(path, chain_lines(sequence, backbone(len(sequence), seed=len(path.name)), **more))  # type: ignore[arg-type]


def odd_folder(folder: Path) -> Path:
    """A folder with everything that can be wrong with a structure file, and four good chains."""
    helix_file(folder / "good.pdb")
    helix_file(folder / "sub" / "deep" / "also_good.ent")
    (folder / "packed.pdb.gz").write_bytes(gzip.compress((folder / "good.pdb").read_bytes()))
    helix_file(folder / "noext")
    helix_file(folder / "caonly.pdb", names=("CA",))
    helix_file(folder / "short.pdb", "AKG")
    helix_file(folder / "unknown.pdb", "XXXXXX")
    write_lines(folder / "empty.cif", ["data_x", "_entry.id x"])
    write_lines(folder / "notes.txt", ["a word about these files"])
    (folder / "zero.pdb").touch()
    (folder / "broken.cif.gz").write_bytes(b"\x1f\x8b\x08 broken")
    write_lines(folder / ".hidden.pdb", ["not read"])
    return folder
