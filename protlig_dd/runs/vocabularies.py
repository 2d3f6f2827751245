"""The vocabularies of a run in its folder, which is what is copied and shared: `vocabulary_<track>.json`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean

from protlig_dd.data.readers.sources import find_sources
from protlig_dd.data.settings import MoleculeData, PairData
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.files import written_whole
from protlig_dd.runs.experiment import Experiment
from protlig_dd.tokens.ligand import save_vocabulary
from protlig_dd.tokens.merges import learn_merges, merge
from protlig_dd.tokens.settings import BUILT_IN, LEARNED, LigandTrack

log = logging.getLogger(__name__)


_MOST_MOLECULES = 50_000  # from which merges are learned


def learn_vocabularies(config: Experiment, folder: Path) -> None:
    """Make the learned vocabularies of an experiment, unless the run folder holds them: those of the run that it starts from, or of its own molecules.

    Raises:
        ConfigError: for data without molecules.
        FormatError: for files that cannot be read.
    """
    for name, track in config.tracks.items():
        if isinstance(track, LigandTrack) and track.vocabulary == LEARNED and not _kept(folder, name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            sources = [_kept(Path(source), name) for source in config.train.init_from.split(",")]
            if found := next((path for path in sources if path.is_file()), None):
                _copy(found, _kept(folder, name))
                log.info("vocabulary of the %s: that of %s", name, found.parent)
            else:
                _learn(config, name, track, _kept(folder, name))


def _learn(config: Experiment, name: str, track: LigandTrack, path: Path) -> None:
    """Write a vocabulary with the merges of the run's own molecules, and log how much shorter it makes them."""
    started = time.perf_counter()
    texts = _molecules(config, name, track)
    merges = learn_merges(texts, track.merges)
    built_in = replace(track, vocabulary=BUILT_IN, merges=0).build(name).vocabulary
    symbols = Counter({built_in.symbols[i]: 1 for i in built_in.emittable_ids}) | Counter(s for text in texts for s in text)
    vocabulary = save_vocabulary(path, symbols, merges=merges)
    ranks, some = {pair: i for i, pair in enumerate(merges)}, texts[:1000]
    log.info(
        "vocabulary of the %s: %d tokens, %d of them merges learned from %d molecules in %.0f s; %.1f tokens a molecule instead of %.1f",
        *(name, len(vocabulary.emittable_ids), len(merges), len(texts), time.perf_counter() - started),
        *(mean(len(merge(text, ranks)) for text in some), mean(map(len, some))),
    )


def _molecules(config: Experiment, name: str, track: LigandTrack) -> list[list[str]]:
    """The symbols of the first distinct molecules of the training data; those that cannot be cut are left to the encoder to report."""
    data = config.data
    if not isinstance(data, MoleculeData | PairData):
        raise ConfigError(
            f"tracks.{name}.vocabulary: 'learned' needs data of molecules or pairs, found data.kind '{data.kind}'; name a file"
        )
    found: dict[str, list[str]] = {}
    for record in find_sources(data, {}).parts["train"].open():
        text = record.texts.get(name, "")
        if not text or text in found:
            continue
        with suppress(FormatError):
            found[text] = track.split(data.molecules.apply(text, where=record.where), where=record.where)
        if len(found) == _MOST_MOLECULES:
            break
    if not found:
        raise ConfigError(f"tracks.{name}.vocabulary: found no molecule in {data.path} to learn it from; see: protlig inspect {data.path}")
    return list(found.values())


def with_vocabularies(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment with its vocabulary files as they are found: where the config says, or else in the run folder.

    Raises:
        FormatError: if a file is in neither place.
    """
    found = {
        name: replace(track, vocabulary=str(_find(folder, name, track.vocabulary)), merges=0) for name, track in _with_files(config).items()
    }
    return replace(config, tracks={**config.tracks, **found}) if found else config


def own_vocabularies(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment with the vocabulary files of the run folder; those of a run that kept none are looked for as it names them.

    Raises:
        FormatError: if a file is in neither place.
    """
    kept = {name: track for name, track in _with_files(config).items() if _kept(folder, name).is_file()}
    own = {name: replace(track, vocabulary=str(_kept(folder, name)), merges=0) for name, track in kept.items()}
    return with_vocabularies(replace(config, tracks={**config.tracks, **own}) if own else config, folder)


def keep_vocabularies(config: Experiment, folder: Path) -> None:
    """Copy the vocabulary files that an experiment names into its run folder."""
    for name, track in _with_files(config).items():
        source, kept = Path(track.vocabulary), _kept(folder, name)
        if source.is_file() and source.resolve() != kept.resolve():
            _copy(source, kept)


def _copy(source: Path, target: Path) -> None:
    with written_whole(target) as growing:
        growing.write_bytes(source.read_bytes())


def keep_missing_vocabularies(config: Experiment, folder: Path) -> None:
    """Copy the vocabulary files of an opened run into its folder if a run of an older version kept none; one that is read-only stays as it is."""
    if any(not _kept(folder, name).is_file() for name in _with_files(config)):
        with suppress(OSError):
            keep_vocabularies(config, folder)
            log.info("%s: keeps a copy of its vocabulary from now on, so that the folder is all that it needs", folder)


def _with_files(config: Experiment) -> dict[str, LigandTrack]:
    return {name: t for name, t in config.tracks.items() if isinstance(t, LigandTrack) and t.vocabulary != BUILT_IN}


def _kept(folder: Path, name: str) -> Path:
    return folder / f"vocabulary_{name}.json"


def _find(folder: Path, name: str, vocabulary: str) -> Path:
    places = (Path(vocabulary), _kept(folder, name), folder / Path(vocabulary).name)
    for place in places:
        if place.is_file():
            return place
    if not (folder / "checkpoints").is_dir():
        return places[0]  # a run that begins: whoever reads the file says what is wrong
    raise FormatError(
        f"{folder}: tracks.{name}.vocabulary: found no '{vocabulary}' here and no {places[1].name} in the run folder; copy the vocabulary of the "
        f"training there under this name, or start in the folder where the run was trained (a run made now keeps a copy itself)"
    )
