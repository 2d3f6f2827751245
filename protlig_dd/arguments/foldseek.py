"""The options of `protlig foldseek`."""

from __future__ import annotations

from protlig_dd.arguments.foldseek_build import add_foldseek_build
from protlig_dd.cli.common import add_command

_FOLDSEEK = """A database is named by its path without any ending: afdb50/afdb50 for afdb50, afdb50_ss, afdb50_ca and their .index files.
  protlig foldseek info db                      what it holds: entries, lengths, forms, what has coordinates
  protlig foldseek head db --num 3              the first entries: names, amino acids, 3Di, coordinates
  protlig foldseek verify db                    read all of it and tell every fault (exit code 1 if there is one)
  protlig foldseek export db --aa aa.fasta --ss 3di.fasta --pdb traces
  protlig foldseek build pdbs/ --out db         make one of structure files; no Foldseek is needed

Plain, split (db.0, db.1, ...), zstd-compressed and padded databases are read alike, and sub-databases, whose keys are not row numbers:
everything is joined by key. Large text indices are parsed once, into db.index.protlig beside them (or in $PROTLIG_CACHE).
"""
_PATH = "the database, without any ending"


def add_foldseek(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `foldseek` with its actions."""
    sub = add_command(
        commands, "foldseek", "foldseek.info", "look into Foldseek databases, check, export and make them", _FOLDSEEK
    )
    actions = sub.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_info(actions)
    _add_head(actions)
    _add_verify(actions)
    _add_export(actions)
    add_foldseek_build(actions)


def _add_info(actions) -> None:  # type: ignore[no-untyped-def]
    epilog = "Nothing but the indices is read. For db_ss only that sub-database is described.\n  protlig foldseek info afdb50/afdb50"
    sub = add_command(actions, "info", "foldseek.info", "say what a database holds", epilog)
    sub.add_argument("database", help=_PATH)


def _add_head(actions) -> None:  # type: ignore[no-untyped-def]
    epilog = (
        "Lower-case letters are masked residues (low confidence, or repeats); everything else in the toolkit reads them as upper case.\n"
        "  protlig foldseek head db --num 3\n"
        "  protlig foldseek head db --name 1tim_A 8tim_A --width 0"
    )
    sub = add_command(actions, "head", "foldseek.head", "show entries: name, amino acids, 3Di, coordinates", epilog)
    sub.add_argument("database", help=_PATH)
    sub.add_argument("--num", type=int, default=5, help="how many (5)")
    sub.add_argument("--width", type=int, default=80, help="letters shown of each (80; 0: all)")
    _add_choice(sub)


def _add_verify(actions) -> None:  # type: ignore[no-untyped-def]
    epilog = (
        "Reads every entry of every sub-database: types, index rows, bounds, terminators, alphabets, equal lengths, sizes of coordinates,\n"
        "keys that lack a partner, names that disagree. One line a fault, with file, entry and line of the index; then a summary. A sound\n"
        "database has about 99.9 % of its steps from C-alpha to C-alpha at 3.8 Angstrom.\n"
        "  protlig foldseek verify db && protlig tokenize db --out cache"
    )
    sub = add_command(actions, "verify", "foldseek.verify", "read all of a database and tell every fault", epilog)
    sub.add_argument("database", help=_PATH)


def _add_export(actions) -> None:  # type: ignore[no-untyped-def]
    epilog = (
        "  protlig foldseek export db --aa aa.fasta                         as 'foldseek convert2fasta' does\n"
        "  protlig foldseek export db --ss 3di.fasta --keep-case            masked residues in lower case\n"
        "  protlig foldseek export db --pdb traces --name 1tim_A 8tim_A     two C-alpha traces"
    )
    sub = add_command(actions, "export", "foldseek.export", "write FASTA files and C-alpha traces", epilog)
    sub.add_argument("database", help=_PATH)
    sub.add_argument("--aa", default="", metavar="FASTA", help="write the amino acids here")
    sub.add_argument("--ss", default="", metavar="FASTA", help="write the 3Di letters here")
    sub.add_argument("--pdb", default="", metavar="FOLDER", help="write a PDB file of each C-alpha trace here")
    sub.add_argument("--limit", type=int, default=0, help="only the first so many (0: all)")
    sub.add_argument("--keep-case", action="store_true", help="leave masked residues in lower case")
    _add_choice(sub)


def _add_choice(sub) -> None:  # type: ignore[no-untyped-def]
    sub.add_argument("--key", type=int, nargs="+", default=[], metavar="KEY", help="only the entries of these keys")
    sub.add_argument(
        "--name", nargs="+", default=[], metavar="NAME", help="only the entries of these names, as in 1tim_A"
    )
