"""Experiment tracking: metrics.jsonl always, TensorBoard and wandb if configured. On rank 0 only; other ranks get a `Tracking` without trackers.

A resumed run continues the same files: records after the step it resumes from are removed from metrics.jsonl, hidden in TensorBoard, and
overwritten in wandb (same run id), so that no step is counted twice.
"""

from __future__ import annotations

import io
import logging
import netrc
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from protlig_dd.config import settings
from protlig_dd.documents import read_json_object
from protlig_dd.errors import ConfigError, FormatError, MissingDependencyError, require
from protlig_dd.files import write_json
from protlig_dd.training.trackers import JsonlTracker, TensorBoardTracker, Tracker

log = logging.getLogger(__name__)
_IDENTITY = "wandb_run.json"


@settings
class TrackingSettings:
    """The trackers of a run in addition to metrics.jsonl.

    Args:
        tensorboard: write event files into the run's folder.
        wandb: "auto" uses wandb if a key is found or WANDB_MODE=offline is set; "on" raises an error without it; "off" never uses it.
        project: the wandb project.
        entity: the wandb team or user; empty for the default one.
        name: the run's name in wandb; empty for the name of its folder.
        timeout_seconds: longest time that wandb may delay the run at its start, and at its end.
    """

    tensorboard: bool = True
    wandb: Literal["auto", "on", "off"] = "auto"
    project: str = "protlig_dd"
    entity: str = ""
    name: str = ""
    timeout_seconds: float = 10.0


class WandbTracker:
    """A wandb run whose id is stored in `wandb_run.json`, so that a resumed run is the same wandb run."""

    def __init__(self, folder: Path, settings: TrackingSettings, mode: str, config: Mapping[str, Any]) -> None:
        # wandb's own error reports would delay the end of a run by 20 s if the server does not answer.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = require("wandb", "tracking.wandb", extra="train")
        identity = folder / _IDENTITY
        if not identity.is_file():
            write_json(identity, {"id": secrets.token_hex(4)}, indent=None)
        run_id = read_json_object(identity, "remove it").get("id")
        if not isinstance(run_id, str) or not re.fullmatch(r"[0-9a-zA-Z_-]{1,64}", run_id):  # it becomes part of a path
            raise FormatError(
                f"{identity}: id: found {str(run_id)[:40]!r}, expected the id of a wandb run; remove the file to begin another one"
            )
        wanted: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT") or settings.project,
            "entity": os.environ.get("WANDB_ENTITY") or settings.entity or None,
            "name": settings.name or folder.name,
            "id": run_id,
            "resume": "allow",  # offline it is written down, so that `wandb sync` continues the history of an earlier part
            "dir": str(folder),
            "config": dict(config),
        }
        num_earlier = len(list(folder.glob(f"wandb/offline-run-*-{run_id}")))
        limits = {"init_timeout": settings.timeout_seconds, "finish_timeout": settings.timeout_seconds, "silent": True}
        try:
            self._run = self._wandb.init(mode=mode, settings=self._wandb.Settings(**limits), **wanted)
        except (self._wandb.Error, OSError) as error:
            reason = " ".join(str(error).split())
            log.warning("wandb: %s; this run is logged offline, send it later with: wandb sync", reason)
            # The running service would refuse the id of the failed run: start a new one.
            self._wandb.teardown()
            os.environ.pop("WANDB_SERVICE", None)
            self._run = self._wandb.init(mode="offline", settings=self._wandb.Settings(**limits), **wanted)
        self._run.define_metric("*", step_metric="step")
        if num_earlier and self._run.offline:
            log.info(
                "wandb: this is part %d of the offline run %s; upload all parts together for one history: wandb sync %s/wandb/offline-run-*-%s "
                "(with a wandb that has this option: wandb sync --append)", num_earlier + 1, run_id, folder, run_id,
            )  # fmt: skip

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        self._run.log({"step": step, **metrics})

    def log_text(self, step: int, name: str, text: str) -> None:
        self._run.log({"step": step, name: self._wandb.Html(f"<pre>{text}</pre>", inject=False)})

    def log_image(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image

        self._run.log({"step": step, name: self._wandb.Image(Image.open(io.BytesIO(png)))})

    def log_structure(self, step: int, name: str, pdb: str) -> None:
        self._run.log({"step": step, name: self._wandb.Molecule(io.StringIO(pdb), caption=name, file_type="pdb")})

    def close(self) -> None:
        """See `Tracker.close`; waits at most `timeout_seconds`."""
        self._run.finish()


def wandb_mode(settings: TrackingSettings) -> tuple[str, str]:
    """Return how wandb will be used ("online", "offline" or "off"), and the reason.

    Raises:
        ConfigError: if it is required ("on") and there is no key.
        MissingDependencyError: if it is required and not installed.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if settings.wandb == "off" or mode == "disabled":
        return "off", "it is turned off"
    offline = mode in ("offline", "dryrun")
    server = (os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").rstrip("/")
    if not offline and not _has_key(server):
        if settings.wandb == "on":
            raise ConfigError(
                "tracking.wandb: found 'on' but no key; log in with: wandb login (or set WANDB_API_KEY, or WANDB_MODE=offline)"
            )
        return "off", "there is no key (wandb login, or WANDB_MODE=offline)"
    try:
        require("wandb", "tracking.wandb", extra="train")
    except MissingDependencyError:
        if settings.wandb == "on":
            raise
        return "off", "it is not installed"
    if offline:
        return "offline", f"WANDB_MODE={mode}"
    if not _reachable(server, settings.timeout_seconds):
        return "offline", f"{server} cannot be reached; send the run later with: wandb sync"
    return "online", "a key was found"


def _has_key(server: str) -> bool:
    """Return whether there is a key for a server, in WANDB_API_KEY or in .netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlparse(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reachable(url: str, timeout_seconds: float) -> bool:
    """Return whether a server accepts connections; behind a proxy this is unknown, and the answer is True."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return True
    parts = urlparse(url)
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection((parts.hostname or "", port), timeout=min(timeout_seconds, 3.0)):
            return True
    except OSError:
        return False


class Tracking:
    """Several trackers as one; without any tracker it records nothing."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self.trackers = list(trackers)

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        for tracker in self.trackers:
            tracker.log(step, metrics)

    def log_text(self, step: int, name: str, text: str) -> None:
        for tracker in self.trackers:
            tracker.log_text(step, name, text)

    def log_image(self, step: int, name: str, png: bytes) -> None:
        for tracker in self.trackers:
            tracker.log_image(step, name, png)

    def log_structure(self, step: int, name: str, pdb: str) -> None:
        for tracker in self.trackers:
            tracker.log_structure(step, name, pdb)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


def start_tracking(
    folder: Path, settings: TrackingSettings, *, rank: int, resumed_step: int = 0, config: Mapping[str, Any] | None = None
) -> Tracking:
    """Return the trackers of a run; none on ranks other than 0.

    Args:
        folder: the run's folder.
        settings: which trackers are used.
        rank: rank of this process.
        resumed_step: steps done before; records of later steps are removed.
        config: the whole configuration, for wandb.

    Raises:
        ConfigError: if wandb is required and there is no key.
    """
    if rank != 0:
        return Tracking()
    trackers: list[Tracker] = [JsonlTracker(folder, resumed_step)]
    if settings.tensorboard:
        try:
            trackers.append(TensorBoardTracker(folder, resumed_step))
        except MissingDependencyError as error:
            log.info("tracking.tensorboard: %s; not used", error)
    return Tracking([*trackers, *_wandb(folder, settings, config or {})])


def rejoin_wandb(folder: Path, settings: TrackingSettings) -> Tracking:
    """Return a `Tracking` that continues the wandb run of a trained run; without trackers if it has none, or wandb is not used now.

    Raises:
        ConfigError: if wandb is required and there is no key.
    """
    return Tracking(_wandb(folder, settings, {}) if (folder / _IDENTITY).is_file() else ())


def _wandb(folder: Path, settings: TrackingSettings, config: Mapping[str, Any]) -> list[Tracker]:
    """The wandb tracker, if wandb is used; one line of the log says so."""
    mode, reason = wandb_mode(settings)
    log.info("wandb: %s, %s", "not used" if mode == "off" else mode, reason)
    return [] if mode == "off" else [WandbTracker(folder, settings, mode, config)]
