"""`protlig inspect`, `protlig prepare` and `protlig download`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data import inspect as inspection
from protlig_dd.data.downloads import catalogue as downloads
from protlig_dd.data.prepare import prepare_shards, prepare_vocab
from protlig_dd.data.readers.complexes import Columns
from protlig_dd.data.subsets import SubsetPlan, prepare_subsets
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.tokens.tracks import Track


def _tracks(config: str) -> dict[str, Track]:
    return Parts(load_experiment(config)).tracks if config else inspection.usual_tracks()


def _columns(pairs: list[str]) -> Columns:
    known = set(Columns.__dataclass_fields__)
    values = {}
    for pair in pairs:
        role, sep, name = pair.partition("=")
        if not sep or role not in known:
            raise ConfigError(
                f"--column '{pair}': expected ROLE=NAME with a role among {', '.join(sorted(known))}{nearest(role, known)}"
            )
        values[role] = name
    return Columns(**values)


def _path(name: str) -> Path | None:
    return Path(name) if name else None


def inspect(options: Namespace) -> Iterator[str]:
    """Say what a file holds."""
    report = inspection.inspect(
        Path(options.file),
        _tracks(options.config) if options.config else None,
        columns=_columns(options.column),
        structures=_path(options.structures),
    )
    yield from report.lines()


def prepare(options: Namespace) -> Iterator[str]:
    """Make a vocabulary, shards or subsets."""
    files = [Path(f) for f in options.files]
    if options.what == "vocab":
        yield from prepare_vocab(files, Path(options.out), min_count=options.min_count).lines()
        return
    if len(files) != 1:
        raise ConfigError(
            f"prepare {options.what}: found {len(files)} files, expected one; concatenate them, or make a folder for each"
        )
    if options.what == "subsets":
        plan = SubsetPlan(
            sizes=tuple(options.sizes), validation=options.validation, seed=options.seed, name=options.name
        )
        yield from prepare_subsets(files[0], Path(options.out), plan).lines()
        return
    data = load_experiment(options.config).data if options.config else None
    policies = {
        name: getattr(data, name)
        for name in ("too_long", "unknown", "columns", "molecules", "limit")
        if hasattr(data, name)
    }
    structures = _path(options.structures or getattr(data, "structure_path", ""))
    out = Path(options.out)
    yield from prepare_shards(files[0], _tracks(options.config), out, structures=structures, **policies).lines()


def download(options: Namespace) -> Iterator[str]:
    """Fetch a public data set, or the report's viewer."""
    result = downloads.download(options.name, Path(options.out), limit=options.limit, base=options.base_url)
    yield from result.lines()
