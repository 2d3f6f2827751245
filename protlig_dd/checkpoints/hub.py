"""Download of a model's files from the Hub, or from its local cache if the Hub does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protlig_dd.errors import CheckpointError, DownloadError, require, said_by

_SECONDS = 10.0
"""Timeout of the first request to the Hub."""


def is_answered(name: str) -> bool:
    """Return whether the Hub answers for a repository; if it does not, libraries retry for minutes with a message each time.

    Args:
        name: the repository, such as "Rostlab/ProstT5".

    Raises:
        MissingDependencyError: without huggingface_hub.
    """
    hub = require("huggingface_hub", f"fetching '{name}'", extra="hf")
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        hub.HfApi().model_info(name, timeout=_SECONDS)
    except (OSError, HTTPError, HFValidationError):
        return False
    return True


def absent_weights(source: str, error: Exception, what: str, without: str, published: str) -> DownloadError:
    """Return the error about weights that are not at hand: the reason, what happens without them, and how to fetch the published ones."""
    return DownloadError(
        f"{source}: {what} are not at hand ({said_by(error)}); {without}. Give a folder that holds them, or fetch them where there is a "
        f"network: hf download {published}"
    )


def fetch_repository(name: str, patterns: Sequence[str]) -> Path:
    """Return the local folder of a Hub repository.

    Args:
        name: the repository, such as "airkingbd/dplm_150m".
        patterns: glob patterns of the required files, such as "*.json".

    Raises:
        CheckpointError: if there is no such repository, or neither the Hub nor the cache has it.
        MissingDependencyError: without huggingface_hub.
    """
    hub = require("huggingface_hub", f"fetching '{name}'", extra="hf")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    first: Exception | None = None
    try:
        try:  # a separate request, since the download itself has no timeout
            version = {"revision": hub.HfApi().model_info(name, timeout=_SECONDS).sha}
        except (HTTPError, HfHubHTTPError, ConnectionError) as error:
            first, version = error, {"local_files_only": True}
        return Path(hub.snapshot_download(name, allow_patterns=list(patterns), **version))
    except (OSError, HTTPError, HFValidationError, RuntimeError) as error:
        said = " ".join(str(first or error).split())[:160]
        raise CheckpointError(
            f"'{name}': neither a folder nor to be had from the Hub ({said}); check the id and the network, or give a folder"
        ) from error
