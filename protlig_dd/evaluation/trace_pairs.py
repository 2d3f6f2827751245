"""Predicted C-alpha traces and the true ones, pair by pair: `traces.json` of a run, and PDB text. Pictures of them are in `report/trace_pictures.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from protlig_dd.documents import read_json
from protlig_dd.errors import FormatError
from protlig_dd.files import write_text
from protlig_dd.structures.superpose import rmsd, superpose

Coords = Float[np.ndarray, "l 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TracePair:
    """A predicted chain and the true one, residue by residue, in Angstrom.

    Args:
        name: the name of the chain.
        predicted, true: C-alphas [l, 3]; finite.
    """

    name: str
    predicted: Coords
    true: Coords

    @property
    def rmsd(self) -> float:
        """The RMSD between the two after superposition, in Angstrom."""
        return rmsd(self.predicted, self.true)


def best_median_worst(traces: Sequence[TracePair]) -> list[tuple[str, TracePair]]:
    """Return the traces of least, middle and greatest RMSD, each with its word; fewer if there are fewer than three."""
    ordered = sorted(traces, key=lambda trace: trace.rmsd)
    ranks = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    chosen = {rank: word for word, rank in reversed(ranks.items()) if 0 <= rank < len(ordered)}
    return [(word, ordered[rank]) for rank, word in sorted(chosen.items())]


def write_traces(path: Path, traces: Sequence[TracePair]) -> None:
    """Write traces as JSON, whole or not at all, coordinates rounded to a thousandth of an Angstrom."""
    rows = [{"name": one.name, "predicted": np.round(one.predicted, 3).tolist(), "true": np.round(one.true, 3).tolist()} for one in traces]
    write_text(path, json.dumps(rows))


def read_traces(path: Path) -> list[TracePair]:
    """Return the traces of a file that `write_traces` made.

    Raises:
        FormatError: if it has any other content.
    """
    rows = read_json(path, "evaluate the run again")
    try:
        found = []
        for row in rows:
            chains = {key: np.asarray(row[key], dtype=np.float64).reshape(-1, 3) for key in ("predicted", "true")}
            found.append(TracePair(name=str(row["name"]), **chains))
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{path}: not readable as traces ({error}); evaluate the run again") from error
    for one in found:
        if len(one.predicted) != len(one.true) or not len(one.true) or not np.isfinite(one.predicted).all():
            raise FormatError(
                f"{path}: '{one.name}' has {len(one.predicted)} predicted and {len(one.true)} true places, expected as many, all finite"
            )
    return found


def superposed(trace: TracePair) -> tuple[Coords, Coords]:
    """Return the prediction superposed on the truth, and the truth, both with the truth's centre at the origin."""
    centre = trace.true.mean(0)
    moved = superpose(trace.predicted, trace.true).apply(trace.predicted)
    return np.asarray(moved - centre), np.asarray(trace.true - centre)


def trace_pdb(trace: TracePair) -> str:
    """Return a trace as the text of a PDB file: C-alphas only, the prediction (chain P) superposed on the truth (chain T).

    Residues are numbered from 1 and named UNK, since a trace has no sequence.
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
