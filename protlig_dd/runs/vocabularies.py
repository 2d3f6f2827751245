"""The vocabularies of a run in its folder, which is what is copied and shared: `vocabulary_<track>.json`."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from protlig_dd.errors import FormatError
from protlig_dd.files import written_whole
from protlig_dd.runs.experiment import Experiment
from protlig_dd.tokens.settings import BUILT_IN, LigandTrack

log = logging.getLogger(__name__)


def with_vocabularies(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment with its vocabulary files as they are found: where the config says, or else in the run folder.

    Raises:
        FormatError: if a file is in neither place.
    """
    found = {name: replace(track, vocabulary=str(_find(folder, name, track.vocabulary))) for name, track in _with_files(config).items()}
    return replace(config, tracks={**config.tracks, **found}) if found else config


def own_vocabularies(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment with the vocabulary files of the run folder; those of a run that kept none are looked for as it names them.

    Raises:
        FormatError: if a file is in neither place.
    """
    kept = {name: track for name, track in _with_files(config).items() if _kept(folder, name).is_file()}
    own = {name: replace(track, vocabulary=str(_kept(folder, name))) for name, track in kept.items()}
    return with_vocabularies(replace(config, tracks={**config.tracks, **own}) if own else config, folder)


def keep_vocabularies(config: Experiment, folder: Path) -> None:
    """Copy the vocabulary files that an experiment names into its run folder."""
    for name, track in _with_files(config).items():
        source, kept = Path(track.vocabulary), _kept(folder, name)
        if source.is_file() and source.resolve() != kept.resolve():
            with written_whole(kept) as growing:
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
