"""`protlig foldseek info`, `head`, `verify` and `export`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.foldseek.export import describe_database, export_fasta, export_traces, header_of, select_rows
from protlig_dd.data.foldseek.files import find_file, sibling
from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.data.foldseek.verify import Verifier
from protlig_dd.errors import ConfigError


def info(options: Namespace) -> Iterator[str]:
    """Say what a database holds."""
    yield from describe_database(Path(options.database))


def head(options: Namespace) -> Iterator[str]:
    """Show the first entries, or those of some keys and names."""
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


def verify(options: Namespace) -> Iterator[str | int]:
    """Read everything and tell every fault; the last value is the exit code."""
    verifier = Verifier(Path(options.database))
    yield from verifier.faults()
    yield from verifier.summary()
    yield 1 if verifier.num_faults else 0


def export(options: Namespace) -> Iterator[str]:
    """Write FASTA files and C-alpha traces."""
    path = Path(options.database)
    if not (options.aa or options.ss or options.pdb):
        raise ConfigError(
            "foldseek export: found nothing to write; give --aa FASTA, --ss FASTA, --pdb FOLDER, or several"
        )
    if options.limit < 0:
        raise ConfigError(f"--limit {options.limit}: expected 0 (all) or more entries")
    _check_outputs(options)
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


def _check_outputs(options: Namespace) -> None:
    """Refuse files that cannot be written, before any of them is.

    Raises:
        ConfigError: naming the option.
    """
    for name, text in (("--aa", options.aa), ("--ss", options.ss)):
        file = Path(text)
        if text and file.is_dir():
            raise ConfigError(
                f"{name} {file}: is a folder, expected the name of a FASTA file, such as {file / 'out.fasta'}"
            )
        if text and not file.parent.is_dir():
            raise ConfigError(f"{name} {file}: the folder {file.parent} does not exist; make it first")
    if options.aa and options.ss and Path(options.aa).resolve() == Path(options.ss).resolve():
        raise ConfigError(f"--aa and --ss: found the one file {options.aa} for both; give each a file of its own")
    if options.pdb and Path(options.pdb).exists() and not Path(options.pdb).is_dir():
        raise ConfigError(f"--pdb {options.pdb}: is a file, expected a folder; name another one")
