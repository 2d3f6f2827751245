"""The picture of traces: drawn with the report if matplotlib is installed, of the right chains, and one line of text if it is not."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protlig_dd.errors import MissingDependencyError
from protlig_dd.evaluation.trace_pairs import TracePair, read_traces, write_traces
from protlig_dd.report import trace_pictures
from protlig_dd.report.page import write_report
from protlig_dd.report.trace_pictures import traces_png
from tests.support.chains import helix, traces


def pixels(png: bytes) -> np.ndarray:
    """The picture as numbers from 0 to 1, [rows, columns, 4]."""
    from matplotlib import image

    return np.asarray(image.imread(io.BytesIO(png)))


def red(png: bytes) -> int:
    """Pixels with more red than green."""
    picture = pixels(png)
    return int((picture[..., 0] - picture[..., 1] > 0.3).sum())


def test_a_report_leaves_the_picture_and_shows_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    write_traces(tmp_path / "traces.json", traces())
    page = write_report(tmp_path).read_text()
    png = (tmp_path / "traces.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG") and width > height > 300
    assert page.count('src="data:image/png;base64,') == 1 and "traces.png" in page
    assert png == traces_png(read_traces(tmp_path / "traces.json")), "the same traces give the same picture"


def test_the_prediction_lies_on_the_truth_however_it_was_turned() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    true = helix(20)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    one = [TracePair(name="a", predicted=true @ turn.T + 40, true=true)]
    same = [TracePair(name="a", predicted=true, true=true)]
    apart = [TracePair(name="a", predicted=true * [1, 1, -1], true=true)]
    difference = np.abs(pixels(traces_png(one)) - pixels(traces_png(same)))
    assert (difference > 0.2).mean() < 1e-3
    assert (np.abs(pixels(traces_png(apart)) - pixels(traces_png(same))) > 0.2).mean() > 2e-3
    assert red(traces_png(same)) > 500


def test_one_chain_is_one_column_and_none_is_refused() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    many, one = (pixels(traces_png(some)).shape for some in (traces(), traces()[:1]))
    assert many[0] == one[0] and many[1] == 3 * one[1]
    with pytest.raises(ValueError, match="found no trace"):
        traces_png([])


def test_a_dollar_in_a_name_is_no_formula() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    assert traces_png([TracePair(name="$\\frac{$", predicted=helix(5), true=helix(5))])


def test_without_matplotlib_one_line_says_so_and_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(package: str, purpose: str, *, extra: str) -> Any:
        raise MissingDependencyError(f"{purpose} needs the package 'matplotlib'; pip install 'protlig_dd[{extra}]'")

    monkeypatch.setattr(trace_pictures, "require", absent)
    write_traces(tmp_path / "traces.json", traces())
    with caplog.at_level(logging.INFO):
        page = write_report(tmp_path).read_text()
    assert caplog.messages == ["traces.png: not drawn; drawing traces needs the package 'matplotlib'; pip install 'protlig_dd[plot]'"]
    assert page.count("<animate") == 6 and not (tmp_path / "traces.png").exists()
