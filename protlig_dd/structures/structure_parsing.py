"""PDB and mmCIF files read by gemmi, with a clear error for anything else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protlig_dd.errors import FormatError, require


def load_structure(path: Path) -> Any:
    """Return a PDB or mmCIF file as a gemmi.Structure, gzipped or not, with any suffix.

    Raises:
        FormatError: if the file does not exist, is not a structure, or has no atoms.
        MissingDependencyError: without gemmi.
    """
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    if not path.is_file():
        raise FormatError(f"{path}: found no such file, expected a PDB or mmCIF file; check the path")
    name = str(path)
    try:
        with _readable_name(path) as name:
            found = gemmi.read_structure(name, format=gemmi.CoorFormat.Detect)
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not readable as a structure ({reason.replace(name, str(path))}); expected PDB or mmCIF") from error
    if not len(found) or not any(len(chain) for chain in found[0]):
        raise FormatError(f"{path}: found no atoms, expected a PDB or mmCIF file with coordinates")
    return found


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
