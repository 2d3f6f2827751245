"""`protlig inspect`, `protlig prepare` and `protlig download`: data files before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from protlig_dd.cli.common import Commands, add_command
from protlig_dd.errors import ConfigError, nearest

if TYPE_CHECKING:
    from protlig_dd.data.readers.complexes import Columns

_STRUCTURES = "a FASTA file of structure tokens, with the names of the proteins"
_INSPECT = """Nothing is written.
  protlig inspect pairs.csv
  protlig inspect pairs.csv --column ligand=molecule --config recipe/pairs
  protlig inspect proteins.fasta --structures proteins_3di.fasta"""
_PREPARE = """vocab writes a ligand vocabulary, for tracks.ligand.vocabulary. shards writes a folder of token shards, for training with
data.kind=shards. subsets writes nested training sets of a FASTA file and one validation set for all of them.
  protlig prepare vocab molecules.smi --out vocab.json --min-count 10
  protlig prepare shards pairs.csv --config recipe/pairs --out shards
  protlig prepare subsets uniref50.fasta.gz --out subsets --sizes 1000 10000"""
_DOWNLOAD = """The files come from their publisher, and their checksums are compared where the publisher gives them. The same command
started again continues an interrupted download.
  protlig download davis
  protlig download uniref50 --out data --limit 100000
  protlig download 3dmol --out viewer"""


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Options of `protlig inspect`."""

    file: str
    config: str = ""
    column: tuple[str, ...] = ()
    unit: Literal["", "p", "M", "mM", "uM", "nM", "pM", "as_given"] = ""
    structures: str = ""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of `protlig prepare`."""

    what: Literal["vocab", "shards", "subsets"]
    files: tuple[str, ...]
    out: str
    min_count: int = 1
    config: str = ""
    structures: str = ""
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 500_000, 1_000_000)
    validation: int = 1000
    seed: int = 42
    name: str = "uniref50"


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Options of `protlig download`."""

    name: str
    out: str = "data"
    limit: int = 0
    limits: Literal["", "leave_out", "as_values"] = ""
    base_url: str = ""


def add_data(commands: Commands) -> None:
    """Add `inspect`, `prepare` and `download`."""
    text = "show what a data file contains, and what training would drop and why"
    sub = add_command(commands, "inspect", inspect, InspectOptions, text, _INSPECT)
    sub.add_argument("file", help="CSV, TSV, Parquet, Arrow, JSONL, FASTA, SMILES (also .gz, .zst), or a folder")
    sub.add_argument("--config", help="use the tracks and data policies of this config")
    sub.add_argument("--column", action="append", metavar="ROLE=NAME", help="the name of a column that is not recognized; may be repeated")
    units = ["p", "M", "mM", "uM", "nM", "pM", "as_given"]
    sub.add_argument(
        "--unit", choices=units, help="the unit of the affinity column; p is -log10 M (default: found from its name and values)"
    )
    sub.add_argument("--structures", help=_STRUCTURES)
    text = "make a ligand vocabulary, memory-mapped token shards, or nested subsets"
    sub = add_command(commands, "prepare", prepare, PrepareOptions, text, _PREPARE)
    sub.add_argument("what", choices=["vocab", "shards", "subsets"])
    sub.add_argument("files", nargs="+", help="data files; a folder that is one data set counts as one")
    sub.add_argument("--out", required=True, help="the vocabulary file, or the folder of shards or subsets")
    sub.add_argument("--min-count", type=int, help="vocab: leave out tokens seen fewer times (%(default)s)")
    sub.add_argument("--config", help="vocab and shards: use the data policies and the notation of this config; shards: its tracks too")
    sub.add_argument("--structures", help=f"shards: {_STRUCTURES}")
    sub.add_argument("--sizes", type=int, nargs="+", help="subsets: training sequences of each (%(default)s)")
    sub.add_argument("--validation", type=int, help="subsets: sequences of the common validation set (%(default)s)")
    sub.add_argument("--seed", type=int, help="subsets: decides which sequences are taken (%(default)s)")
    sub.add_argument("--name", help="subsets: first part of the folder names (%(default)s)")
    text = "fetch a public data set, or 3Dmol.js for reports, from its publisher"
    sub = add_command(commands, "download", download, DownloadOptions, text, _DOWNLOAD)
    sub.add_argument("name", help="uniref50, bindingdb, plinder, davis, kiba, zinc250k or pubchem; 3dmol for 'protlig report --viewer'")
    sub.add_argument("--out", help="the folder (%(default)s)")
    sub.add_argument("--limit", type=int, help="convert at most this number of records; 0: all (%(default)s)")
    sub.add_argument(
        "--limits", choices=["leave_out", "as_values"], help="bindingdb: what a limit such as >10000 counts as (leave_out: no affinity)"
    )
    sub.add_argument("--base-url", help="the address of a mirror")


def inspect(options: InspectOptions) -> Iterator[str]:
    """Describe a data file."""
    from protlig_dd.data.inspect import inspect as inspect_file
    from protlig_dd.data.readers.affinity import AffinityPolicy
    from protlig_dd.runs.experiment import Parts, load_experiment

    config = load_experiment(options.config) if options.config else None
    policies = _policies(config.data if config else None, ("columns", "molecules", "affinity", "max_record"))
    if options.column:
        policies["columns"] = _columns(options.column)
    if options.unit:
        policies["affinity"] = replace(policies.get("affinity", AffinityPolicy()), unit=options.unit)
    tracks = Parts(config).tracks if config else None
    yield from inspect_file(Path(options.file), tracks, structures=_path(options.structures), **policies).lines()


def prepare(options: PrepareOptions) -> Iterator[str]:
    """Make a vocabulary, shards or subsets."""
    from protlig_dd.data.prepare import prepare_vocab
    from protlig_dd.data.subsets import SubsetPlan, prepare_subsets
    from protlig_dd.runs.experiment import load_experiment
    from protlig_dd.tokens.settings import LigandTrack

    files, out = [Path(file) for file in options.files], Path(options.out)
    if options.what == "vocab":
        config = load_experiment(options.config) if options.config else None
        policies = _policies(config.data if config else None, ("columns", "molecules", "max_record"))
        ligand = config.tracks.get("ligand") if config else None
        if isinstance(ligand, LigandTrack):
            policies["split"] = ligand.split
        yield from prepare_vocab(files, out, min_count=options.min_count, **policies).lines()
        return
    if len(files) != 1:
        raise ConfigError(f"prepare {options.what}: found {len(files)} files, expected one; concatenate them, or make a folder for each")
    if options.what == "shards":
        yield from _shards(options, files[0])
        return
    plan = SubsetPlan(sizes=options.sizes, validation=options.validation, seed=options.seed, name=options.name)
    yield from prepare_subsets(files[0], out, plan).lines()


def _shards(options: PrepareOptions, file: Path) -> Iterator[str]:
    from protlig_dd.data.inspect import usual_tracks
    from protlig_dd.data.prepare import prepare_shards
    from protlig_dd.runs.experiment import Parts, load_experiment

    config = load_experiment(options.config) if options.config else None
    data = config.data if config else None
    policies = _policies(data, ("too_long", "unknown", "columns", "molecules", "affinity", "max_record", "limit"))
    structures = _path(options.structures or getattr(data, "structure_path", ""))
    tracks = Parts(config).tracks if config else usual_tracks()
    yield from prepare_shards(file, tracks, Path(options.out), structures=structures, **policies).lines()
    if policies.get("too_long") == "crop":
        yield "long proteins are stored whole; training crops them with: data.too_long=crop"


def download(options: DownloadOptions) -> Iterator[str]:
    """Fetch a public data set, or the viewer of reports."""
    from protlig_dd.data.downloads import catalogue
    from protlig_dd.data.readers.affinity import AffinityPolicy

    policy = AffinityPolicy(limits=options.limits) if options.limits else None
    result = catalogue.download(options.name, Path(options.out), limit=options.limit, base=options.base_url, policy=policy)
    yield from result.lines()


def _columns(pairs: Sequence[str]) -> Columns:
    from protlig_dd.data.readers.complexes import Columns

    known = set(Columns.__dataclass_fields__)
    values = {}
    for pair in pairs:
        role, sep, name = pair.partition("=")
        if not sep or role not in known:
            raise ConfigError(f"--column '{pair}': expected ROLE=NAME with a role among {', '.join(sorted(known))}{nearest(role, known)}")
        values[role] = name
    return Columns(**values)


def _policies(data: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(data, name) for name in names if hasattr(data, name)}


def _path(name: str) -> Path | None:
    return Path(name) if name else None
