"""`protlig optimize`: improve a lead molecule towards an objective, with the result of drawing as many without selection as the null."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from protlig_dd.cli.common import Commands, add_command, add_device, add_sampler_options
from protlig_dd.errors import ConfigError, nearest, require
from protlig_dd.files import written_whole
from protlig_dd.runs.options import DrawOptions

if TYPE_CHECKING:
    import numpy as np

    from protlig_dd.sampling.optimize import Candidate

_OPTIMIZE = """A function as the objective is written module:function; it takes a list of SMILES and returns their scores.
  protlig optimize runs/dual_track_demo --ligand CCO --objective qed --rounds 5
  protlig optimize runs/dual_track_demo --ligand c1ccccc1O --protein MKTAYIAKQR --keep c1ccccc1 --out best.csv"""
_LOWER_IS_BETTER = {"SA score", "Lipinski violations"}


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions(DrawOptions):
    """Options of `protlig optimize`."""

    run: str
    ligand: str
    protein: str = ""
    objective: str = "qed"
    keep: str = ""
    rounds: int = 10
    population: int = 16
    out: str = ""


def add_optimize(commands: Commands) -> None:
    """Add `optimize`."""
    sub = add_command(commands, "optimize", optimize_lead, OptimizeOptions, "improve a lead by partial re-noising and selection", _OPTIMIZE)
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--ligand", required=True, help="the SMILES of the lead")
    sub.add_argument("--protein", help="its protein, as in `protlig sample`")
    sub.add_argument("--objective", help="qed, logp, sa, a property's name, or module:function; higher is better (%(default)s)")
    sub.add_argument("--keep", metavar="SMARTS", help="a substructure that every result must have")
    sub.add_argument("--rounds", type=int, help="rounds of re-noising and selection (%(default)s)")
    sub.add_argument("--population", type=int, help="molecules kept in each round (%(default)s)")
    sub.add_argument("--out", help="the CSV file to write (default: print)")
    add_sampler_options(sub)
    add_device(sub)


def objective_from(name: str) -> Callable[[list[str]], np.ndarray]:
    """Return the function that scores SMILES, NaN for invalid ones.

    Raises:
        ConfigError: for an unknown property, or a module:function that cannot be had.
    """
    from protlig_dd.evaluation.objectives import SHORT_NAMES, molecule_scores, user_function
    from protlig_dd.evaluation.properties import PROPERTIES

    if ":" in name:
        return user_function(name, "--objective")
    known = SHORT_NAMES.get(name.lower(), name)
    if known not in PROPERTIES:
        names = [*SHORT_NAMES, *PROPERTIES]
        raise ConfigError(f"--objective '{name}': expected one of {', '.join(names)}, or module:function{nearest(name, names)}")
    return molecule_scores(known, sign=-1.0 if known in _LOWER_IS_BETTER else 1.0)


def _keeps(smarts: str) -> Callable[[str], bool] | None:
    from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit

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


def optimize_lead(options: OptimizeOptions) -> Iterator[str]:
    """Improve a lead, and print the null."""
    from protlig_dd.data.readers.conditions import read_proteins
    from protlig_dd.runs.generate import Generator
    from protlig_dd.runs.open import open_run
    from protlig_dd.runs.output import check_output
    from protlig_dd.runs.sampler_settings import guidance_from, sampler_from
    from protlig_dd.sampling.optimize import optimize
    from protlig_dd.sampling.requests import Request

    if options.out:
        check_output(Path(options.out))
    score = objective_from(options.objective)
    run = open_run(options.run, device=options.device)
    generator = Generator(run, seed=options.seed, sampler=sampler_from(options, run.config), guidance=guidance_from(options, run.config))
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


def _write(path: Path, candidates: Sequence[Candidate]) -> None:
    with written_whole(path) as growing, growing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "ligand", "score"])
        writer.writerows([i, c.text, f"{c.score:.6f}"] for i, c in enumerate(candidates, start=1))
