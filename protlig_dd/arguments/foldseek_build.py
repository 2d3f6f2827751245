"""The options of `protlig foldseek build`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command

_BUILD = """DB, DB_ss, DB_ca and DB_h with their indices are those that Foldseek's createdb makes of the same files; no Foldseek is needed.
  protlig foldseek build pdbs/ --out data/mine
What is left out (chains of 3 residues or fewer, without a known residue, of C-alpha atoms only; unreadable files) is counted,
and listed with its reason in DB.skipped.tsv."""


def add_foldseek_build(steps) -> None:  # type: ignore[no-untyped-def]
    """Add `build` to the steps of `foldseek`."""
    text = "make a Foldseek database, 3Di included, of a folder of PDB and mmCIF files (also .gz)"
    sub = add_command(steps, "build", "foldseek_build.build", text, _BUILD)
    sub.add_argument("folder", help="structure files, in subfolders too; every file that is not hidden is read")
    sub.add_argument("--out", required=True, metavar="DB", help="the database, such as data/mine")
    sub.add_argument(
        "--mask-bfactor-threshold",
        type=float,
        default=0.0,
        metavar="B",
        help="residues with a lower B-factor (pLDDT) get lower-case letters; 0 masks none (0)",
    )
    sub.add_argument(
        "--coord-store-mode",
        type=int,
        choices=[1, 2],
        default=2,
        help="C-alpha as float32 (1), or in 0.001 Angstrom as 16-bit differences, half the size (2)",
    )
    sub.add_argument("--workers", type=int, default=0, help="processes that read structures; 0 is one a core (0)")
