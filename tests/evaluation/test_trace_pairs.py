"""Predicted traces and true ones: written, selected, drawn, and files of another form."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from protlig_dd.errors import FormatError
from protlig_dd.evaluation.trace_pairs import TracePair, best_median_worst, read_traces, trace_pdb, write_traces
from protlig_dd.report.page import render
from protlig_dd.report.trace_pictures import trace_svg
from protlig_dd.structures.structure_io import read_structure
from tests.support.chains import helix, traces


def test_best_median_and_worst_are_by_rmsd() -> None:
    chosen = best_median_worst(traces())
    assert [(word, one.name) for word, one in chosen] == [("best", "c<1>"), ("median", "c<2>"), ("worst", "c<0>")]
    assert [word for word, _ in best_median_worst(traces()[:1])] == ["best"]
    assert best_median_worst([]) == []


def test_a_moved_and_turned_prediction_is_drawn_on_the_truth() -> None:
    true = helix(12)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    trace = TracePair(name="turned", predicted=true @ turn.T + 40, true=true)
    assert trace.rmsd == pytest.approx(0, abs=1e-9)
    lines = ElementTree.fromstring(trace_svg(trace)).findall("polyline")
    assert len(lines) == 2 and lines[0].get("points") == lines[1].get("points")
    frames = lines[0].find("animate").get("values").split(";")  # type: ignore[union-attr]
    assert frames[0] == frames[-1] == lines[0].get("points") and len(set(frames)) > 10, "one whole turn"
    numbers = [abs(float(n)) for frame in frames for n in re.split("[ ,]", frame)]
    assert max(numbers) <= 130, "inside the picture at every angle"


def test_a_mirror_image_is_not_drawn_on_the_truth_and_the_view_mirrors_nothing() -> None:
    true = np.random.default_rng(1).normal(size=(12, 3)) * [1, 2, 4]
    mirrored = trace_svg(TracePair(name="m", predicted=true * [1, 1, -1], true=true))
    first, second = (line.get("values") for line in ElementTree.fromstring(mirrored).findall("polyline/animate"))
    assert first != second, "they may agree from the front, not all around"
    for chain in (true, true * [1, 1, -1]):
        front, quarter = drawn(TracePair(name="h", predicted=chain, true=chain))[0], drawn_frame(chain, 9)
        seen = np.stack([front[:, 0], -front[:, 1], quarter[:, 0]], axis=1)
        moved = chain - chain.mean(0)
        fit = np.linalg.lstsq(moved, seen, rcond=None)[0]
        assert np.linalg.det(fit) > 0


def drawn(trace: TracePair) -> list[np.ndarray]:
    lines = ElementTree.fromstring(trace_svg(trace)).findall("polyline")
    return [numbers(line.get("points") or "") for line in lines]


def drawn_frame(chain: np.ndarray, frame: int) -> np.ndarray:
    line = ElementTree.fromstring(trace_svg(TracePair(name="h", predicted=chain, true=chain))).find("polyline/animate")
    assert line is not None
    return numbers((line.get("values") or "").split(";")[frame])


def numbers(text: str) -> np.ndarray:
    return np.array([[float(n) for n in pair.split(",")] for pair in text.split()])


def test_traces_are_read_back_and_shown_in_the_report(tmp_path: Path) -> None:
    assert "<h2>Structures</h2>" not in render(tmp_path)
    write_traces(tmp_path / "traces.json", traces())
    again = read_traces(tmp_path / "traces.json")
    assert [one.name for one in again] == [one.name for one in traces()]
    np.testing.assert_allclose(again[0].predicted, traces()[0].predicted, atol=6e-4)
    page = render(tmp_path)
    assert "<h2>Structures</h2>" in page and page.count("<animate") == 6 and "c&lt;1&gt;" in page and "<script" not in page


def test_a_trace_is_a_pdb_file_with_the_prediction_on_the_truth(tmp_path: Path) -> None:
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    true = helix(120) + 9000.0
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    text = trace_pdb(TracePair(name="turned \u00e9\nEND", predicted=true @ turn.T, true=true))
    (tmp_path / "x.pdb").write_text(text)
    predicted, again = read_structure(tmp_path / "x.pdb").chains
    assert (predicted.name, again.name) == ("P", "T") and predicted.numbers[-1] == "120"
    np.testing.assert_allclose(predicted.ca, again.ca, atol=2e-3)
    np.testing.assert_allclose(again.ca, true - true.mean(0), atol=1e-3)
    assert text.isascii() and max(map(len, text.splitlines())) <= 80
    atom = next(line for line in text.splitlines() if line.startswith("ATOM"))
    assert (atom[12:16], atom[17:20], atom[21], atom[22:26], atom[76:78]) == (" CA ", "UNK", "P", "   1", " C")
    serials = [int(line[6:11]) for line in text.splitlines() if line.startswith(("ATOM", "TER"))]
    assert serials == list(range(1, 243))


def test_an_interrupted_write_leaves_the_old_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "traces.json"
    write_traces(path, traces())
    before, whole = path.read_text(), Path.write_text

    def full_disk(self: Path, text: str, **settings: str) -> int:
        whole(self, text[: len(text) // 2], **settings)
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_traces(path, traces()[:1])
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"name": "a", "predicted": [[1, 2, 3]], "true": []}]',
        '[{"name": "a"}]',
        '[{"name": "a", "predicted": [[1, 2]], "true": [[1, 2, 3]]}]',
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "traces.json").write_text(text)
    with pytest.raises(FormatError, match="traces.json"):
        read_traces(tmp_path / "traces.json")
