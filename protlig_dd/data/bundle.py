"""From the `data:` settings to token tables: read, encode, split, and report what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from protlig_dd.data.crop import crop_table, uncropped
from protlig_dd.data.encode import Encoder, EncodeReport, encode_records, fitting_rows
from protlig_dd.data.foldseek import table as foldseek_table
from protlig_dd.data.leakage import Leakage, measure_leakage
from protlig_dd.data.permutation import keyed_order
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sources import Source, find_sources
from protlig_dd.data.settings import TRACKS_OF, DataSettings, FileSettings, MoleculeData, PairData, SequenceData, ShardData
from protlig_dd.data.shards import open_shards
from protlig_dd.data.splits import GivenSplit, split_rows
from protlig_dd.data.synthetic.markov import MarkovChain, sequences
from protlig_dd.data.synthetic.textbook import DemoWorld, generate
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.tracks import TrackSet

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was read and how it was split; printed, and kept with the run.

    Args:
        source: the kind and the path.
        encoded: counts of kept and dropped records, by file.
        split: how the parts were made, in words.
        examples: positive and unlabelled examples of each part; these are used for training and validation.
        negatives: examples of each part labelled as not binding; never used for training.
        tokens: training tokens of each track.
        leakage: similarity of validation to training, or None.
    """

    source: str
    encoded: Mapping[str, EncodeReport] = field(default_factory=dict)
    split: str = ""
    examples: Mapping[str, int] = field(default_factory=dict)
    negatives: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    leakage: Leakage | None = None

    def lines(self) -> list[str]:
        """Return the report in words."""

        def listed(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{count} {name}" for name, count in counts.items())

        lines = [f"data: {self.source}"]
        for file, report in self.encoded.items():
            first, *rest = report.lines()
            lines += [f"{file}: {first}", *rest]
        lines.append(f"split: {self.split}: {listed(self.examples)}")
        if any(self.negatives.values()):
            lines.append(f"negatives, kept for evaluation: {listed(self.negatives)}")
        lines.append(f"training tokens: {listed(self.tokens)}")
        return [*lines, self.leakage.line()] if self.leakage is not None else lines


@dataclass(frozen=True, kw_only=True, eq=False)
class DataBundle:
    """The token tables of a run.

    Args:
        train, validation, test: positive and unlabelled examples; validation and test may be empty.
        negatives: examples labelled as not binding, by part.
        report: what was read and how it was split.
    """

    train: TokenTable
    validation: TokenTable
    test: TokenTable
    negatives: Mapping[str, TokenTable]
    report: DataReport

    def part(self, name: str) -> TokenTable:
        """Return the table of "train", "validation" or "test"."""
        assert name in PARTS, name
        table: TokenTable = getattr(self, name)
        return table


def load(data: DataSettings, tracks: TrackSet, seed: int = 0) -> DataBundle:
    """Return the tables that the settings describe.

    Args:
        data: the `data:` part of a config.
        tracks: the tracks to fill; one that the source lacks stays empty.
        seed: seed of random splits and crops.

    Raises:
        FormatError: for files with unexpected content, with file and line.
        ConfigError: if the split is impossible or nothing is left to train on.
    """
    if isinstance(data, DemoWorld):
        return _load_demo(data, tracks)
    if isinstance(data, MarkovChain):
        return _load_markov(data, tracks)
    if isinstance(data, ShardData):
        tables, reports, about = {}, dict[str, EncodeReport](), ""
        for part, path in zip(PARTS, (data.path, data.validation_path, data.test_path), strict=True):
            if path:
                tables[part], reports[path] = _fitting_shards(Path(path), data, tracks, seed)
    else:
        tables, reports = {}, {}
        sources = find_sources(data, tracks)
        for part, source in sources.parts.items():
            tables[part], reports[source.label] = _table_of(source, data, tracks, seed)
        about = sources.about
    parts, how = _divide(tables, tracks, data, seed)
    if isinstance(data, PairData | ShardData) and data.affinity_bins:
        parts = {part: _with_bins(table, data.affinity_bins) for part, table in parts.items()}
        if not (parts["train"].labels["affinity_bin"] >= 0).any():
            raise ConfigError(f"data.affinity_bins: no training example of {data.path} has an affinity; see: protlig inspect {data.path}")
    if data.train_limit:
        parts["train"], limited = _first_of(parts["train"], data.train_limit, seed)
        how += limited
    return _bundle(
        parts,
        DataReport(source=f"{data.kind} from {data.path}" + f" ({about})" * bool(about), encoded=reports, split=how),
        seed if data.leakage else None,
        ends=int("protein" in tracks and tracks["protein"].add_ends),
    )


def _fitting_shards(path: Path, data: ShardData, tracks: TrackSet, seed: int) -> tuple[TokenTable, EncodeReport]:
    """The examples of shards that fit the tracks; the shards may have been written for longer ones."""
    table = open_shards(path, tracks)
    lengths, last = {name: column.lengths for name, column in table.tracks.items()}, data.crop.last
    rows, report = fitting_rows(lengths, tracks, where=lambda row: f"{path}: example {row + 1}", too_long=data.too_long, last_residue=last)
    rows = rows[: data.limit] if data.limit else rows
    return _cropped(table if len(rows) == len(table) else table.select(rows), report, data, tracks, seed)


def _cropped(
    table: TokenTable, report: EncodeReport, data: FileSettings | ShardData, tracks: TrackSet, seed: int
) -> tuple[TokenTable, EncodeReport]:
    """The table with windows of long proteins where the settings ask for them, and the report with their number."""
    if isinstance(data, MoleculeData) or data.too_long != "crop":
        return table, report
    table, count = crop_table(table, tracks, data.crop, seed)
    return table, dataclasses.replace(report, cropped=count)


def make_encoder(data: FileSettings, tracks: TrackSet) -> Encoder:
    """Return the encoder with the policies of the settings."""
    needed = TRACKS_OF[data.kind]
    if needed[0] not in tracks and isinstance(data, SequenceData | MoleculeData):
        raise ConfigError(f"data.kind: found '{data.kind}', the tracks are {sorted(tracks)}; add a track '{needed[0]}', or use other data")
    return Encoder(
        tracks,
        too_long=data.too_long,
        unknown=data.unknown,
        needed=[name for name in needed if name in tracks],
        molecules=None if isinstance(data, SequenceData) else data.molecules,
        last_residue=data.crop.last,
    )


def read_table(data: FileSettings, path: Path, tracks: TrackSet, *, seed: int = 0) -> tuple[TokenTable, EncodeReport]:
    """Return the table of one file (or of a folder's training part) under the settings' policies, and the report of its records."""
    data = dataclasses.replace(data, path=str(path))
    source = find_sources(data, tracks).parts["train"]
    return _table_of(source, data, tracks, seed)


def _table_of(source: Source, data: FileSettings, tracks: TrackSet, seed: int) -> tuple[TokenTable, EncodeReport]:
    """The table of a source: a lazy table over a database if possible, else its encoded records."""
    encoder = make_encoder(data, tracks)
    database = source.database
    if database is not None and data.unknown == "refuse" and foldseek_table.fits(database, tracks):
        laid = foldseek_table.lay_over(database, tracks, too_long=data.too_long, last_residue=data.crop.last, limit=data.limit)
        return _cropped(*laid, data, tracks, seed)
    return _cropped(*encode_records(source.open(), encoder, limit=data.limit), data, tracks, seed)


def _divide(
    tables: dict[str, TokenTable], tracks: TrackSet, data: FileSettings | ShardData, seed: int
) -> tuple[dict[str, TokenTable], str]:
    """Split the main file into the parts that have no file of their own."""
    main = tables["train"]
    if len(main) == 0:
        raise ConfigError(f"data.path: found no usable record in {data.path}; see what was dropped with: protlig inspect {data.path}")
    own = [part for part in PARTS[1:] if part in tables]
    if "validation" in own:
        how = "the folder's own parts" if not data.validation_path else "a file for " + " and ".join(["training", *own])
        return {part: tables.get(part, main.select([])) for part in PARTS}, how
    split_settings = data.split
    if "test" in own and not isinstance(split_settings, GivenSplit):
        split_settings = dataclasses.replace(split_settings, test_fraction=0.0)
    split = split_rows(uncropped(main), tracks, split_settings, seed=seed)
    parts = {part: main.select(getattr(split, part)) for part in PARTS}
    return {**parts, **{part: tables[part] for part in own}}, split.how + "".join(
        f"; a {'file' if data.test_path else 'part of the folder'} for {part}" for part in own
    )


def _first_of(table: TokenTable, limit: int, seed: int) -> tuple[TokenTable, str]:
    """The first `limit` training examples in a seeded order, so that limits are nested, and the words for the report."""
    trains = np.flatnonzero(table.labels.get("label", np.full(len(table), -1)) != 0)
    if limit > len(trains):
        raise ConfigError(f"data.train_limit: found {limit}, there are {len(trains)} training examples; expected no more, or 0 for all")
    order = keyed_order(seed, "train_limit", size=len(trains))
    return table.select(np.sort(trains[order[:limit]])), f"; train_limit: {limit} of {len(trains)} training examples"


def _with_bins(table: TokenTable, edges: tuple[float, ...]) -> TokenTable:
    affinity = table.labels.get("affinity", np.full(len(table), np.nan))
    bins = np.where(np.isnan(affinity), -1, np.digitize(np.nan_to_num(affinity), edges))
    return table.with_labels(affinity_bin=bins.astype(np.int64))


def _bundle(parts: Mapping[str, TokenTable], report: DataReport, leakage_seed: int | None, ends: int = 0) -> DataBundle:
    is_negative = {part: table.labels.get("label", np.full(len(table), -1)) == 0 for part, table in parts.items()}
    positives = {part: table.select(~is_negative[part]) for part, table in parts.items()}
    negatives = {part: table.select(is_negative[part]) for part, table in parts.items()}
    if len(positives["train"]) == 0:
        raise ConfigError(
            f"data: {report.source}: all {len(parts['train'])} training rows are labelled as not binding; expected some labelled 1"
        )
    leakage = None
    if leakage_seed is not None and len(positives["validation"]):
        known, asked = uncropped(positives["train"]), uncropped(positives["validation"])
        leakage = measure_leakage(known, asked, ends=ends, seed=leakage_seed)
    report = dataclasses.replace(
        report,
        examples={part: len(table) for part, table in positives.items()},
        negatives={part: len(table) for part, table in negatives.items()},
        tokens={name: column.num_tokens for name, column in positives["train"].tracks.items()},
        leakage=leakage,
    )
    return DataBundle(**positives, negatives=negatives, report=report)


def _load_demo(world: DemoWorld, tracks: TrackSet) -> DataBundle:
    needed = [name for name in ("protein", "ligand") if name in tracks]
    texts = {part: [{name: getattr(pair, name) for name in needed} for pair in pairs] for part, pairs in generate(world).items()}
    source, how = (f"demo, a SYNTHETIC world of seed {world.seed}", "validation and test proteins from families unseen in training")
    return _synthetic(texts, tracks, needed, label=1, report=DataReport(source=source, split=how))


def _load_markov(chain: MarkovChain, tracks: TrackSet) -> DataBundle:
    texts = {part: [{"protein": text} for text in found] for part, found in sequences(chain).items()}
    source = f"markov, a SYNTHETIC chain of order {chain.order} and seed {chain.seed}, {chain.entropy:.4f} nats a residue"
    return _synthetic(texts, tracks, ["protein"], label=None, report=DataReport(source=source, split="streams of their own"))


def _synthetic(
    texts: Mapping[str, list[dict[str, str]]], tracks: TrackSet, needed: list[str], *, label: int | None, report: DataReport
) -> DataBundle:
    """The bundle of a synthetic source from the texts of each part's examples by track."""
    kind, tables, reports = report.source.split(",")[0], {}, {}
    for part, examples in texts.items():
        records = (
            Record(where=f"{kind} {part}:{i + 1}", texts=example, label=label, name=f"{part}{i}") for i, example in enumerate(examples)
        )
        tables[part], reports[part] = encode_records(records, Encoder(tracks, too_long="refuse", needed=needed))
    return _bundle(tables, dataclasses.replace(report, encoded=reports), None)
