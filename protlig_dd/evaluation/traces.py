"""Predicted C-alpha traces over the true ones: kept beside a run, written as PDB text, drawn turning in the report without a network.

The picture is SVG whose points are animated through a full turn about the vertical axis; where a viewer does not animate, it shows the
first view. Predictions are superposed on the truth first (proper rotations). Views for the mouse stand in `viewer.py`, pictures that
stand still in `trace_pictures.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import FormatError
from protlig_dd.structures.superpose import rmsd, superpose

Coords = Float[np.ndarray, "l 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A predicted chain and the true one, residue by residue, in Angstrom.

    Args:
        name: what the chain is called.
        predicted, true: C-alphas [l, 3]; finite.
    """

    name: str
    predicted: Coords
    true: Coords

    @property
    def rmsd(self) -> float:
        """Between the two after superposition, in Angstrom."""
        return rmsd(self.predicted, self.true)


def best_median_worst(traces: Sequence[Trace]) -> list[tuple[str, Trace]]:
    """Return the traces of least, middle and greatest RMSD, with these words; fewer where there are fewer."""
    ordered = sorted(traces, key=lambda trace: trace.rmsd)
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    chosen = {place: word for word, place in reversed(places.items()) if 0 <= place < len(ordered)}
    return [(word, ordered[place]) for place, word in sorted(chosen.items())]


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Write traces as JSON, coordinates to a thousandth of an Angstrom."""
    rows = [
        {"name": one.name, "predicted": np.round(one.predicted, 3).tolist(), "true": np.round(one.true, 3).tolist()}
        for one in traces
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")


def read_traces(path: Path) -> list[Trace]:
    """Return the traces of a file that `write_traces` made.

    Raises:
        FormatError: if it holds anything else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Trace(
                name=str(row["name"]),
                predicted=np.asarray(row["predicted"], dtype=np.float64).reshape(-1, 3),
                true=np.asarray(row["true"], dtype=np.float64).reshape(-1, 3),
            )
            for row in rows
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{path}: not readable as traces ({error}); evaluate the run again") from error
    for one in found:
        if len(one.predicted) != len(one.true) or not len(one.true) or not np.isfinite(one.predicted).all():
            raise FormatError(
                f"{path}: '{one.name}' has {len(one.predicted)} predicted and {len(one.true)} true places, expected as many, all finite"
            )
    return found


def superposed(trace: Trace) -> tuple[Coords, Coords]:
    """Return the prediction and the truth of a trace, the prediction moved onto the truth and both about the truth's centre."""
    centre = trace.true.mean(0)
    moved = superpose(trace.predicted, trace.true).apply(trace.predicted)
    return np.asarray(moved - centre), np.asarray(trace.true - centre)


def trace_pdb(trace: Trace) -> str:
    """Return a trace as the text of a PDB file: C-alphas only, the prediction (chain P) superposed on the truth (chain T).

    Residues are numbered from 1 and called UNK: a trace does not know them.
    """
    title = " ".join(trace.name.encode("ascii", "replace").decode().split())
    lines = [f"TITLE     {title[:44]}: P PREDICTED, T TRUE"]
    serial = 0
    for chain, points in zip("PT", superposed(trace), strict=True):
        for number, (x, y, z) in enumerate(points.tolist(), 1):
            serial += 1
            lines.append(
                f"ATOM  {serial % 100_000:5d}  CA  UNK {chain}{number % 10_000:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {'C':>2}"
            )
        serial += 1
        lines.append(f"TER   {serial % 100_000:5d}      UNK {chain}{number % 10_000:4d}")
    return "\n".join([*lines, "END", ""])
