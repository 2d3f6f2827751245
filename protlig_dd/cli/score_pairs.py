"""`protlig score --pairs`: ligands ranked for their targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from protlig_dd.errors import ConfigError

if TYPE_CHECKING:
    from protlig_dd.evaluation.binding.ranking import Information
    from protlig_dd.runs.run import Run

_TASKS = ("ligand_given_protein", "ligand_only")


def ranked_pairs(run: Run, pairs: Path, *, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each pair of a table, the best ligand of each target first, and lines about the table and its labels.

    Raises:
        ConfigError: for a run without both tasks, or a table of which no pair can be read.
    """
    from protlig_dd.data.bundle import read_table
    from protlig_dd.data.settings import PairData
    from protlig_dd.evaluation.binding.ranking import information

    trained = {name for name, weight in run.parts.tasks.weights.items() if weight > 0}
    if missing := [task for task in _TASKS if task not in trained]:
        raise ConfigError(
            f"{run.folder}: was never trained on {' and '.join(missing)}, expected a run on pairs with both tasks; "
            f"train with diffusion.tasks.{missing[0]}=0.1"
        )
    data = run.config.data if isinstance(run.config.data, PairData) else PairData(path=str(pairs))
    table, report = read_table(replace(data, path=str(pairs), unknown="drop", limit=0), pairs, run.tracks, seed=run.config.seed)
    if not len(table):
        raise ConfigError(f"--pairs {pairs}: {report.lines()[0]}; see: protlig inspect {pairs}")
    found = information(run.denoising, table, seed=seed)
    decoded: dict[str, list[str]] = {
        name: [run.tracks[name].decode(table.example(i)[name].tolist()) for i in range(len(table))] for name in ("protein", "ligand")
    }
    rows = [
        {
            "name": table.name_of(i),
            "id": i,
            "ligand": decoded["ligand"][i],
            "nats_given_protein": round(float(found.given[i]), 4),
            "nats_alone": round(float(found.alone[i]), 4),
            "pmi": round(float(found.pmi[i]), 4),
            "pmi_per_token": round(float(found.pmi[i] / max(found.tokens[i], 1)), 5),
        }
        for i in range(len(table))
    ]
    labels = table.labels["label"]
    if (labels >= 0).all():
        rows = [{**row, "label": int(label)} for row, label in zip(rows, labels, strict=True)]
    places = {protein: i for i, protein in enumerate(dict.fromkeys(decoded["protein"]))}
    order = sorted(range(len(rows)), key=lambda i: (places[decoded["protein"][i]], -found.pmi[i]))
    lines = [f"{pairs}: {line}" for line in report.lines()]
    return [rows[i] for i in order], lines + _told(run, decoded, labels, found, seed)


def _told(run: Run, decoded: dict[str, list[str]], labels: np.ndarray, found: Information, seed: int) -> list[str]:
    """Return how well the ranking agrees with the labels, beside what needs no model; nothing without both labels."""
    from protlig_dd.evaluation.binding.ranking import agreement, nulls, target_codes
    from protlig_dd.evaluation.ligands import canonical_smiles
    from protlig_dd.runs.held_out import training_of

    rows = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[rows])) < 2:
        return ["no AUROC: it takes pairs labelled 1 and pairs labelled 0"]
    proteins = [decoded["protein"][i] for i in rows.tolist()]
    ligands = [one or "" for one in canonical_smiles([decoded["ligand"][i] for i in rows.tolist()])]
    codes, clusters = target_codes(proteins)
    refused = run.data.negatives.get("train")
    negatives = training_of(run, refused).by_protein if refused is not None else {}
    scores = {
        "pmi": found.pmi[rows],
        "pmi per token": (found.pmi / np.maximum(found.tokens, 1))[rows],
        "bound without the protein": -found.alone[rows],
        **nulls(proteins, ligands, training_of(run, run.data.train), negatives),
    }
    lines = [f"AUROC over {len(rows)} labelled pairs, and mean within the targets that have both labels ({len(clusters)} targets)"]
    for name, values in scores.items():
        one = agreement(np.asarray(values), labels[rows] == 1, codes, clusters, seed)
        lines.append(f"  {name:<28}{one.overall!s:<24}{one.within}")
    return lines
