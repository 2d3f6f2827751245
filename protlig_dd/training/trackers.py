"""The tracker interface, and the two trackers that write to the run folder: JSON lines and TensorBoard event files.

The wandb tracker, and the choice of a run's trackers, are in `tracking.py`.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from protlig_dd.documents import json_or_none
from protlig_dd.errors import require
from protlig_dd.files import write_text


@runtime_checkable
class Tracker(Protocol):
    """Records metrics, texts, images and structures by step."""

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """Record the metrics of a step."""

    def log_text(self, step: int, name: str, text: str) -> None:
        """Record a text, such as sampled sequences."""

    def log_image(self, step: int, name: str, png: bytes) -> None:
        """Record an image, as the bytes of a PNG file."""

    def log_structure(self, step: int, name: str, pdb: str) -> None:
        """Record a structure, as the text of a PDB file."""

    def close(self) -> None:
        """Write everything that is buffered."""


class JsonlTracker:
    """One JSON object per line in `metrics.jsonl`, and texts, images and structures as files under `samples/`.

    Args:
        folder: the run's folder.
        resumed_step: lines of later steps are removed.
    """

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        self._folder = folder
        path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        _truncate(path, resumed_step)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._start = time.time()

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """See `Tracker.log`; a value that is not finite becomes null, since JSON has no NaN."""
        plain = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        seconds = round(time.time() - self._start, 3)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **plain}) + "\n")

    def log_text(self, step: int, name: str, text: str) -> None:
        self._path(step, name, "txt").write_text(text + "\n", encoding="utf-8")

    def log_image(self, step: int, name: str, png: bytes) -> None:
        self._path(step, name, "png").write_bytes(png)

    def log_structure(self, step: int, name: str, pdb: str) -> None:
        self._path(step, name, "pdb").write_text(pdb, encoding="utf-8")

    def _path(self, step: int, name: str, suffix: str) -> Path:
        folder = self._folder / "samples"
        folder.mkdir(exist_ok=True)
        return folder / f"{name.replace('/', '_')}_{step:08d}.{suffix}"

    def close(self) -> None:
        self._file.close()


def _truncate(path: Path, resumed_step: int) -> None:
    """Keep the complete lines up to a step; the last line of a killed run may be cut off."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= resumed_step]
    write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    values = json_or_none(line)
    step = values.get("step") if isinstance(values, dict) else None
    return float(step) if isinstance(step, int | float) else math.inf


class TensorBoardTracker:
    """Event files under `tensorboard/`, written without importing TensorFlow or torch's writer."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        require("tensorboard", "tracking.tensorboard", extra="train")
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2, summary_pb2
        self._writer = EventFileWriter(str(folder / "tensorboard"))
        if resumed_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=resumed_step + 1, session_log=start))

    def _add(self, step: int, values: Sequence[Any]) -> None:
        summary = self._summary.Summary(value=values)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))

    def log(self, step: int, metrics: Mapping[str, float | int]) -> None:
        self._add(step, [self._summary.Summary.Value(tag=k, simple_value=float(v)) for k, v in metrics.items()])

    def log_text(self, step: int, name: str, text: str) -> None:
        from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2

        plugin = self._summary.SummaryMetadata(plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text"))
        one = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()], tensor_shape=one)
        self._add(step, [self._summary.Summary.Value(tag=name, metadata=plugin, tensor=tensor)])

    def log_image(self, step: int, name: str, png: bytes) -> None:
        width, height = struct.unpack(">II", png[16:24])  # the header of a PNG file
        image = self._summary.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._add(step, [self._summary.Summary.Value(tag=name, image=image)])

    def log_structure(self, step: int, name: str, pdb: str) -> None:
        """See `Tracker.log_structure`; TensorBoard has no view of molecules, so nothing is written."""

    def close(self) -> None:
        self._writer.close()
