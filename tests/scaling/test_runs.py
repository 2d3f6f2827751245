"""Runs as columns: CSV files, metrics that rise, and tables that cannot be fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.scaling.analysis import analyse, write_runs
from protlig_dd.scaling.runs import orient, read_csv
from tests.support.known import LAW, grid_runs, runs_of


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_are_found_by_their_usual_names_and_by_those_given(tmp_path: Path) -> None:
    plain = read_csv(write(tmp_path / "a.csv", "N,D,loss\n1e6,1e7,2.5\n2e6,1e7,2.4\n"))
    assert plain.params.tolist() == [1e6, 2e6] and plain.metric == "loss" and plain.names == ("row 2", "row 3")
    other = read_csv(write(tmp_path / "b.csv", "run_name,width,data_size,bits\nx,1e6,1e7,2.5\n"), {"params": "width"}, "bits")
    assert other.names == ("x",) and other.values.tolist() == [2.5]


BAD = {
    "a column is missing": ("N,D\n1,2\n", r"a\.csv:1: found the columns N, D, expected one of value, loss.* --columns value=COLUMN"),
    "not a number": ("N,D,loss\n1e6,1e7,2\n1e6,1e7,nan\n", r"a\.csv:3: loss: found 'nan', expected a finite number"),
    "an empty cell": ("N,D,loss\n1e6,,2\n", r"a\.csv:2: D: found '', expected a finite number"),
    "no row": ("N,D,loss\n", r"a\.csv: found no row"),
    "not positive": ("N,D,loss\n1e6,1e7,-2\n", r"run 'row 2': found loss -2, expected a positive number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_get_one_clear_line(case: str, tmp_path: Path) -> None:
    text, words = BAD[case]
    with pytest.raises((FormatError, ConfigError), match=words):
        read_csv(write(tmp_path / "a.csv", text))


def test_a_rising_fraction_is_fitted_as_its_distance_from_one() -> None:
    falling = grid_runs()
    rising = runs_of(falling.params, falling.tokens, 1 - falling.values / 10)
    runs = orient(rising)
    assert runs.ceiling == 1.0
    assert runs.losses == pytest.approx(falling.values / 10)
    assert runs.to_measured(runs.losses) == pytest.approx(rising.values)
    law = analyse(runs, num_resamples=10).law.law
    assert law is not None and law.alpha == pytest.approx(LAW.alpha, rel=1e-3)


def test_a_falling_metric_stays_and_one_that_rises_without_a_known_end_is_refused() -> None:
    falling = grid_runs()
    assert orient(falling).ceiling is None
    plddt = runs_of(falling.params, falling.tokens, 100 - 10 * falling.values)
    with pytest.raises(ConfigError, match="it rises with size and data.*give what it cannot exceed with --ceiling"):
        orient(plddt)
    assert orient(plddt, ceiling=100.0).losses == pytest.approx(10 * falling.values)
    with pytest.raises(ConfigError, match=r"expected a positive number; raise --ceiling above every value"):
        orient(plddt, ceiling=60.0)
    assert orient(plddt, "falling").ceiling is None


def test_runs_that_are_written_are_read_again(tmp_path: Path) -> None:
    runs = grid_runs(noise=1e-3)
    write_runs(tmp_path / "runs.csv", analyse(runs, num_resamples=5))
    again = read_csv(tmp_path / "runs.csv")
    assert again.names == runs.names and np.allclose(again.values, runs.values, rtol=1e-7)


def test_an_analysis_is_plain_json() -> None:
    import json

    plain = analyse(grid_runs(noise=1e-3), num_resamples=10, budgets=(1e15,)).to_json()
    text = json.dumps(plain, allow_nan=False)
    assert "6 N D" in text and plain["law"]["is_identified"] is True
    assert plain["optima"][0]["compute"] == 1e15
    assert plain["held_out"]["error"] < plain["held_out"]["null_error"]
