"""`protlig foldseek info`, `head`, `verify`, `export` and `build`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.cli.common import Commands, add_command, add_group, check_workers
from protlig_dd.errors import ConfigError

_FOLDSEEK = """A database is named by its path without an ending: afdb50/afdb50 for afdb50, afdb50_ss, afdb50_ca and their .index files.
  protlig foldseek info db                      # entries, lengths, file forms, how many have coordinates
  protlig foldseek head db --num 3              # the first entries: names, amino acids, 3Di, coordinates
  protlig foldseek verify db                    # read all of it and report every fault (exit code 1 if there is one)
  protlig foldseek export db --aa aa.fasta --ss 3di.fasta --pdb traces
  protlig foldseek build pdbs/ --out db         # make a database from structure files; Foldseek is not needed

Plain, split (db.0, db.1, ...), zstd-compressed and padded databases can be read, and sub-databases, whose keys are not row numbers:
the parts are joined by key. A large text index is parsed once, into db.index.protlig in the same folder (or in $PROTLIG_CACHE).
"""
_INFO = """Only the indices are read. For db_ss only that sub-database is described.
  protlig foldseek info afdb50/afdb50"""
_HEAD = """Lower-case letters are masked residues (low confidence, or repeats); all other commands read them as upper case.
  protlig foldseek head db --num 3
  protlig foldseek head db --name 1tim_A 8tim_A --width 0"""
_VERIFY = """Reads every entry of every sub-database: types, index rows, bounds, terminators, alphabets, equal lengths, sizes of coordinates,
keys without a partner, names that disagree. Prints one line for each fault, with file, entry and line of the index; then a summary.
In a sound database about 99.9 % of the steps from C-alpha to C-alpha are 3.8 Angstrom long.
  protlig foldseek verify db && protlig tokenize db --out cache"""
_EXPORT = """  protlig foldseek export db --aa aa.fasta                         # as 'foldseek convert2fasta' does
  protlig foldseek export db --ss 3di.fasta --keep-case            # masked residues in lower case
  protlig foldseek export db --pdb traces --name 1tim_A 8tim_A     # two C-alpha traces"""
_BUILD = """DB, DB_ss, DB_ca and DB_h with their indices equal those that Foldseek's createdb makes from the same files; Foldseek is not needed.
  protlig foldseek build pdbs/ --out data/mine
Entries that are left out (chains of 3 residues or fewer, without a known residue, or with C-alpha atoms only; unreadable files) are
counted, and listed with the reason in DB.skipped.tsv."""


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """Options of `protlig foldseek info` and `protlig foldseek verify`: the path of a database without an ending."""

    database: str


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(DatabaseOptions):
    """Which entries of a database: those with these keys and names; all if there are none."""

    key: tuple[int, ...] = ()
    name: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeadOptions(SelectionOptions):
    """Options of `protlig foldseek head`."""

    num: int = 5
    width: int = 80


@dataclass(frozen=True, kw_only=True)
class ExportOptions(SelectionOptions):
    """Options of `protlig foldseek export`."""

    aa: str = ""
    ss: str = ""
    pdb: str = ""
    limit: int = 0
    keep_case: bool = False

    def check(self) -> None:
        """Refuse files that cannot be written, before any of them is.

        Raises:
            ConfigError: naming the option.
        """
        if not (self.aa or self.ss or self.pdb):
            raise ConfigError("foldseek export: found nothing to write; give --aa FASTA, --ss FASTA, --pdb FOLDER, or several")
        if self.limit < 0:
            raise ConfigError(f"--limit {self.limit}: expected 0 (all) or more entries")
        for name, text in (("--aa", self.aa), ("--ss", self.ss)):
            file = Path(text)
            if text and file.is_dir():
                raise ConfigError(f"{name} {file}: is a folder, expected the name of a FASTA file, such as {file / 'out.fasta'}")
            if text and not file.parent.is_dir():
                raise ConfigError(f"{name} {file}: the folder {file.parent} does not exist; make it first")
        if self.aa and self.ss and Path(self.aa).resolve() == Path(self.ss).resolve():
            raise ConfigError(f"--aa and --ss: found the one file {self.aa} for both; give each a file of its own")
        if self.pdb and Path(self.pdb).exists() and not Path(self.pdb).is_dir():
            raise ConfigError(f"--pdb {self.pdb}: is a file, expected a folder; name another one")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of `protlig foldseek build`."""

    folder: str
    out: str
    mask_bfactor_threshold: float = 0.0
    coord_store_mode: int = 2
    workers: int = 0


def add_foldseek(commands: Commands) -> None:
    """Add `foldseek` with its actions."""
    text = "describe, check, export and make Foldseek databases"
    actions = add_group(commands, "foldseek", text, _FOLDSEEK, metavar="ACTION")
    _database(add_command(actions, "info", info, DatabaseOptions, "describe a database", _INFO))
    text = "show entries: name, amino acids, 3Di, coordinates"
    sub = _database(add_command(actions, "head", head, HeadOptions, text, _HEAD))
    sub.add_argument("--num", type=int, help="entries to show (%(default)s)")
    sub.add_argument("--width", type=int, help="letters shown of each sequence; 0: all (%(default)s)")
    _add_selection(sub)
    text = "read a whole database and report every fault"
    _database(add_command(actions, "verify", verify, DatabaseOptions, text, _VERIFY))
    text = "write FASTA files and C-alpha traces"
    sub = _database(add_command(actions, "export", export, ExportOptions, text, _EXPORT))
    sub.add_argument("--aa", metavar="FASTA", help="the file for the amino acids")
    sub.add_argument("--ss", metavar="FASTA", help="the file for the 3Di letters")
    sub.add_argument("--pdb", metavar="FOLDER", help="the folder for a PDB file of each C-alpha trace")
    sub.add_argument("--limit", type=int, help="at most this number of entries, the first ones; 0: all (%(default)s)")
    sub.add_argument("--keep-case", action="store_true", help="keep masked residues in lower case")
    _add_selection(sub)
    text = "make a Foldseek database, with 3Di letters, from a folder of PDB and mmCIF files (also .gz)"
    sub = add_command(actions, "build", build, BuildOptions, text, _BUILD)
    sub.add_argument("folder", help="structure files, also in subfolders; every file that is not hidden is read")
    sub.add_argument("--out", required=True, metavar="DB", help="the database, such as data/mine")
    text = "residues with a lower B-factor (pLDDT) get lower-case letters; 0 masks none (%(default)s)"
    sub.add_argument("--mask-bfactor-threshold", type=float, metavar="B", help=text)
    text = "C-alphas as float32 (1), or as 16-bit differences in 0.001 Angstrom, half the size (2) (%(default)s)"
    sub.add_argument("--coord-store-mode", type=int, choices=[1, 2], help=text)
    sub.add_argument("--workers", type=int, help="processes that read structures; 0: one for each core (%(default)s)")


def _database(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
    sub.add_argument("database", help="the database, without an ending")
    return sub


def _add_selection(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--key", type=int, nargs="+", metavar="KEY", help="only the entries with these keys")
    sub.add_argument("--name", nargs="+", metavar="NAME", help="only the entries with these names, such as 1tim_A")


def info(options: DatabaseOptions) -> Iterator[str]:
    """Describe a database."""
    from protlig_dd.data.foldseek.export import describe_database

    yield from describe_database(Path(options.database))


def head(options: HeadOptions) -> Iterator[str]:
    """Show the first entries, or those with some keys and names."""
    from protlig_dd.data.foldseek.export import header_of, select_rows
    from protlig_dd.data.foldseek.files import find_file, sibling
    from protlig_dd.data.foldseek.pairs import FoldseekDB

    if options.num < 1:
        raise ConfigError(f"--num {options.num}: expected 1 or more entries")
    path = Path(options.database)
    db, ss = FoldseekDB(path, keep_case=True), FoldseekDB(sibling(path, "_ss"), keep_case=True)
    has_ss = not db.is_3di and find_file(sibling(ss.path, ".index")) is not None
    chosen = bool(options.key or options.name)
    for row in select_rows(db, keys=options.key, names=options.name, limit=0 if chosen else options.num):
        key = int(db.keys[row])
        yield f"{header_of(db, row)}   (key {key}, {db.lengths[row]} residues)"
        yield f"  {'3Di' if db.is_3di else 'aa '}  {_cut(db.get_sequence(row), options.width)}"
        if has_ss:
            letters = _cut(ss.get_by_key(key), options.width) if ss.index.find(key) >= 0 else "none"
            yield f"  3Di  {letters}"
        if db.has_calpha:
            places = ["({:.3f} {:.3f} {:.3f})".format(*place) for place in db.calpha(row)[:3].tolist()]
            yield f"  CA   {' '.join(places)} ... Angstrom"


def _cut(text: str, width: int) -> str:
    return text if width <= 0 or len(text) <= width else f"{text[:width]}..."


def verify(options: DatabaseOptions) -> Iterator[str | int]:
    """Read a whole database and report every fault; the last value is the exit code."""
    from protlig_dd.data.foldseek.verify import Verifier

    verifier = Verifier(Path(options.database))
    yield from verifier.faults()
    yield from verifier.summary()
    yield 1 if verifier.num_faults else 0


def export(options: ExportOptions) -> Iterator[str]:
    """Write FASTA files and C-alpha traces."""
    from protlig_dd.data.foldseek.export import export_fasta, export_traces, select_rows
    from protlig_dd.data.foldseek.files import find_file, sibling
    from protlig_dd.data.foldseek.pairs import FoldseekDB

    options.check()
    path = Path(options.database)
    aa = FoldseekDB(path, keep_case=options.keep_case)
    rows = select_rows(aa, keys=options.key, names=options.name, limit=options.limit)
    if aa.is_3di:
        raise ConfigError(
            f"{path}: holds 3Di letters, expected the amino acids; name the whole database, {path.name.removesuffix('_ss')}, and give --ss"
        )
    if options.ss and find_file(sibling(path, "_ss.index")) is None:
        raise ConfigError(f"--ss: {path} has no 3Di letters ({path.name}_ss); leave --ss out, or name another database")
    if options.pdb and not aa.has_calpha:
        raise ConfigError(f"--pdb: {path} has no C-alphas ({path.name}_ca); leave --pdb out, or name another database")
    if options.aa:
        yield f"{options.aa}: {export_fasta(aa, rows, Path(options.aa))} sequences"
    if options.ss:
        ss = FoldseekDB(sibling(path, "_ss"), keep_case=options.keep_case)
        ss_rows = (ss.row_of_key(int(aa.keys[row])) for row in rows)
        yield f"{options.ss}: {export_fasta(ss, ss_rows, Path(options.ss))} sequences"
    if options.pdb:
        yield f"{options.pdb}: {export_traces(aa, rows, Path(options.pdb))} C-alpha traces"


def build(options: BuildOptions) -> Iterator[str]:
    """Make a database from a folder of structures."""
    from protlig_dd.data.foldseek.build import build_database

    check_workers(options.workers)
    report = build_database(
        Path(options.folder),
        Path(options.out),
        workers=options.workers,
        mask_bfactor_threshold=options.mask_bfactor_threshold,
        coord_store="float" if options.coord_store_mode == 1 else "differences",
    )
    yield from report.lines()
