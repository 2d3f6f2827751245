"""PDB and mmCIF files as gemmi reads them, with one clear error for what is no structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protlig_dd.errors import FormatError, require


def load_structure(path: Path) -> Any:
    """Return what gemmi reads from a PDB or mmCIF file (a gemmi.Structure), gzipped or not, whatever its name ends in.

    Raises:
        FormatError: if there is no such file, it is no structure, or it holds no atoms.
        MissingDependencyError: without gemmi.
    """
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    if not path.is_file():
        raise FormatError(f"{path}: found no such file, expected a PDB or mmCIF file; check the path")
    try:
        found = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not readable as a structure ({reason}); expected PDB or mmCIF") from error
    if not len(found) or not any(len(chain) for chain in found[0]):
        raise FormatError(f"{path}: found no atoms, expected a PDB or mmCIF file with coordinates")
    return found
