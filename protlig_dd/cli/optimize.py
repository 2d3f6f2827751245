"""`protlig optimize`: a lead, an objective, constraints; the best molecules found beside what drawing as many without selection gives."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from protlig_dd.cli.sample import guidance_from, sampler_from
from protlig_dd.data.readers.conditions import read_proteins
from protlig_dd.errors import ConfigError, nearest, require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.evaluation.objectives import SHORT_NAMES, molecule_scores, user_function
from protlig_dd.evaluation.properties import PROPERTIES
from protlig_dd.runs.generate import Generator, Request
from protlig_dd.runs.open import open_run
from protlig_dd.runs.output import check_output
from protlig_dd.sampling.optimize import Candidate, optimize

_LOWER_IS_BETTER = {"SA score", "Lipinski violations"}


def objective_from(name: str) -> Callable[[list[str]], np.ndarray]:
    """Return the function that scores SMILES, NaN for invalid ones.

    Raises:
        ConfigError: for an unknown property, or a module:function that cannot be had.
    """
    if ":" in name:
        return user_function(name, "--objective")
    known = SHORT_NAMES.get(name.lower(), name)
    if known not in PROPERTIES:
        names = [*SHORT_NAMES, *PROPERTIES]
        raise ConfigError(
            f"--objective '{name}': expected one of {', '.join(names)}, or module:function{nearest(name, names)}"
        )
    return molecule_scores(known, sign=-1.0 if known in _LOWER_IS_BETTER else 1.0)


def _keeps(smarts: str) -> Callable[[str], bool] | None:
    if not smarts:
        return None
    chem = require("rdkit.Chem", "matching substructures", extra="ligand")
    with silent_rdkit():
        pattern = chem.MolFromSmarts(smarts)
    if pattern is None:
        raise ConfigError(f"--keep '{smarts}': not a SMARTS pattern")

    def holds(smiles: str) -> bool:
        with silent_rdkit():
            molecule = parse_molecule(smiles)[0]
        return molecule is not None and molecule.HasSubstructMatch(pattern)

    return holds


def optimize_lead(options: Namespace) -> Iterator[str]:
    """Improve a lead, and show the null."""
    if options.out:
        check_output(Path(options.out))
    score = objective_from(options.objective)
    run = open_run(options.run, device=options.device)
    generator = Generator(
        run, seed=options.seed, sampler=sampler_from(options, run.config), guidance=guidance_from(options, run.config)
    )
    given = {"ligand": options.ligand}
    if options.protein:
        given["protein"] = read_proteins(options.protein)[0][1]
    batch = generator.lead(Request(name="lead", given=given), "ligand")
    result = optimize(
        generator.denoising(("ligand",)),
        batch,
        track="ligand",
        objective=score,
        constraint=_keeps(options.keep),
        rounds=options.rounds,
        population=options.population,
        seed=options.seed,
        sampler=generator.sampler,
    )
    best, null = max(c.score for c in result.best), max(c.score for c in result.null_best)
    yield f"lead  {result.lead.score:.4f}  {result.lead.text}"
    yield f"best  {best:.4f} after {result.num_evaluations} evaluations; without selection {null:.4f} (the null)"
    if options.out:
        _write(Path(options.out), result.best)
        yield f"{len(result.best)} molecules: {options.out}"
    else:
        yield from (f"{c.score:.4f}  {c.text}" for c in result.best)


def _write(path: Path, candidates: tuple[Candidate, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "ligand", "score"])
        writer.writerows([i, c.text, f"{c.score:.6f}"] for i, c in enumerate(candidates, start=1))
