"""`protlig optimize`: improve a lead molecule towards an objective, with the result of drawing as many without selection as the null."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protlig_dd.cli.common import Commands, add_command, add_device, add_sampler_options
from protlig_dd.errors import ConfigError, nearest, require
from protlig_dd.runs.options import DrawOptions

if TYPE_CHECKING:
    import numpy as np

    from protlig_dd.sampling.optimize import Candidate, OptimizeResult

_OPTIMIZE = """A function as the objective is written module:function; it takes a list of SMILES and returns their scores.
  protlig optimize runs/dual_track_demo --ligand CCO --objective qed --rounds 5
  protlig optimize runs/dual_track_demo --ligand c1ccccc1O --protein MKTAYIAKQR --keep c1ccccc1 --out best.csv
Each molecule other than the lead comes with its similarity to the lead (Tanimoto, Morgan fingerprints of radius 2, 2048 bits) and its
structural alerts (Brenk, PAINS, strained small rings): an objective such as QED knows nothing of stability."""
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
    sub.add_argument("--ligand", required=True, help="the lead: a SMILES, or a file with one")
    sub.add_argument("--protein", help="its protein, as in `protlig sample`")
    sub.add_argument("--objective", help="qed, logp, sa, a property's name, or module:function; higher is better (%(default)s)")
    sub.add_argument("--keep", metavar="SMARTS", help="a substructure that every result must have")
    sub.add_argument("--rounds", type=int, help="rounds of re-noising and selection (%(default)s)")
    sub.add_argument("--population", type=int, help="molecules kept in each round (%(default)s)")
    sub.add_argument("--out", help="the file to write: .csv, .jsonl, .smi or .sdf (default: print)")
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
    from protlig_dd.data.readers.conditions import read_ligands, read_proteins, tell_proteins
    from protlig_dd.runs.generate import Generator
    from protlig_dd.runs.open import open_run
    from protlig_dd.runs.output import check_output, check_tracks, write_rows
    from protlig_dd.runs.sampler_settings import guidance_from, sampler_from
    from protlig_dd.sampling.optimize import optimize
    from protlig_dd.sampling.requests import Request

    out = Path(options.out) if options.out else None
    if out is not None:
        check_output(out)
        check_tracks(out, [{"ligand"}])
    score = objective_from(options.objective)
    run = open_run(options.run, device=options.device)
    generator = Generator(run, seed=options.seed, sampler=sampler_from(options, run.config), guidance=guidance_from(options, run.config))
    given = {"ligand": _only(read_ligands(options.ligand), "--ligand")}
    if options.protein:
        given["protein"] = _only(read_proteins(options.protein), "--protein")
        if "protein" in run.tracks:
            tell_proteins([("--protein", given["protein"])], run.tracks["protein"])
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
        batch_size=options.batch_size,
    )
    generator.watched.check()
    rows = _rows(result.lead, result.best)
    yield from _summary(result, rows)
    if out is not None:
        told = write_rows(out, rows, generator.settings() | {"objective": options.objective, "lead": result.lead.text})
        yield f"{len(rows)} molecules: {out}"
        yield from told
    else:
        yield from (f"{r['score']:.4f}  similarity {r['similarity']:.2f}  {r['ligand']}  {r['alerts'] or 'no alerts'}" for r in rows)


def _only(given: Sequence[tuple[str, str]], option: str) -> str:
    if len(given) != 1:
        raise ConfigError(f"{option}: found {len(given)} records, expected one; give it alone")
    return given[0][1]


def _rows(lead: Candidate, found: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return a row for each distinct molecule other than the lead, best first, with its similarity to the lead and its alerts."""
    from protlig_dd.evaluation.candidates import similarities, structural_alerts
    from protlig_dd.evaluation.ligands import canonical_smiles

    own, *canonical = canonical_smiles([lead.text, *(c.text for c in found)])
    distinct = {known or c.text: c for known, c in reversed(list(zip(canonical, found, strict=True))) if c.text != lead.text}
    distinct.pop(own or lead.text, None)  # the same molecule, written otherwise
    kept = [c for c in found if c in distinct.values()]
    alike = similarities(lead.text, [c.text for c in kept])
    return [
        {
            "id": rank,
            "name": "optimized",
            "rank": rank,
            "ligand": c.text,
            "score": round(c.score, 6),
            "similarity": round(similarity, 4),
            "alerts": "; ".join(structural_alerts(c.text)),
        }
        for rank, (c, similarity) in enumerate(zip(kept, alike, strict=True), start=1)
    ]


def _summary(result: OptimizeResult, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lead, the best with its null, and the shares: of variations that could be kept, and of molecules with alerts."""
    from protlig_dd.evaluation.candidates import structural_alerts

    alerts = "; ".join(structural_alerts(result.lead.text)) or "no alerts"
    yield f"lead  {result.lead.score:.4f}  {result.lead.text}  {alerts}"
    shares = []
    for rounds in (result.history, result.null):
        drawn, kept = sum(r.num_samples for r in rounds), sum(r.num_admissible for r in rounds)
        shares.append(f"{kept} of {drawn} ({100 * kept / drawn:.0f} %)")
    yield f"admissible variations (valid, with what is to be kept): {shares[0]}; without selection {shares[1]} (the null)"
    if not rows:
        yield "no molecule but the lead: raise --rounds or --population, or loosen --keep"
        return
    null = max(c.score for c in result.null_best)
    yield f"best  {rows[0]['score']:.4f} after {result.num_evaluations} evaluations; without selection {null:.4f} (the null)"
    clean = [row["score"] for row in rows if not row["alerts"]]
    best = f"; the best without one: {clean[0]:.4f}" if clean else ""
    yield f"structural alerts: {len(rows) - len(clean)} of {len(rows)} molecules{best}"
