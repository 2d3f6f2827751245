"""TM-scores of `align_chains` against TM-align's, on random pairs of the chains of a folder of structures.

    pip install tmtools    # TM-align's own code (GPL), for this comparison only
    python benchmarks/tm_align.py FOLDER [--pairs 150] [--seed 0] [--biotite]

Each pair gives two scores, normalised by the length of either chain; both programs find lower bounds, so a positive difference means that the
alignment found here is the better one. With --biotite (`pip install biotite`) its `superimpose_structural_homologs` is measured too.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine, report

from protlig_dd.structures.structure_io import is_structure_name, read_structure
from protlig_dd.structures.tm_align import align_chains

Chain = np.ndarray
Scores = tuple[float, float]


def chains_of(folder: Path) -> list[Chain]:
    """Return the C-alphas of all protein chains of at least 10 residues, in the order of the files; names need no ending (SCOPe's have none)."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and (is_structure_name(path) or not path.suffix)):
        found += [chain.ca[chain.has_ca].astype(np.float64) for chain in read_structure(path).chains]
    return [chain for chain in found if len(chain) >= 10]


def by_tm_align(first: Chain, second: Chain) -> Scores:
    """Return TM-align's scores."""
    found = import_module("tmtools").tm_align(first, second, "A" * len(first), "A" * len(second))
    return found.tm_norm_chain1, found.tm_norm_chain2


def by_biotite(first: Chain, second: Chain) -> Scores:
    """Return the scores of biotite's alignment by its structural alphabet; NaN if it gives none."""
    structure = import_module("biotite.structure")
    arrays = []
    for chain in (first, second):
        atoms = structure.AtomArray(len(chain))
        atoms.coord, atoms.res_id = chain.astype(np.float32), np.arange(1, len(chain) + 1)
        atoms.atom_name[:], atoms.res_name[:], atoms.chain_id[:], atoms.element[:] = "CA", "ALA", "A", "C"
        arrays.append(atoms)
    try:
        moved, _, second_rows, first_rows = structure.superimpose_structural_homologs(arrays[1], arrays[0], max_iterations=100)
    except ValueError:  # it found the chains too dissimilar
        return float("nan"), float("nan")
    scores = (structure.tm_score(arrays[1], moved, second_rows, first_rows, reference_length=len(chain)) for chain in (first, second))
    return tuple(float(score) for score in scores)  # type: ignore[return-value]


def ours(first: Chain, second: Chain, *, thorough: bool) -> Scores:
    """Return the scores of `align_chains`."""
    found = align_chains(first, second, thorough=thorough)
    return found.tm_first, found.tm_second


def measured(pairs: list[tuple[Chain, Chain]], score: Callable[[Chain, Chain], Scores]) -> tuple[np.ndarray, float]:
    """Return the scores of all pairs [n, 2], and the CPU seconds for one."""
    start = time.process_time()
    scores = np.array([score(first, second) for first, second in pairs])
    return scores, (time.process_time() - start) / len(pairs)


def compared(scores: np.ndarray, theirs: np.ndarray, seconds: float) -> dict[str, float]:
    """Return what a table of differences says."""
    difference = (scores - theirs)[np.isfinite(scores)]
    figures = {
        "without_score": 1 - np.isfinite(scores).mean(),
        "mean": difference.mean(),
        "mean_absolute": np.abs(difference).mean(),
        "lowest": difference.min(),
        "highest": difference.max(),
        "share_below_-0.01": (difference < -0.01).mean(),
        "share_above_0.01": (difference > 0.01).mean(),
    }
    return {**{name: round(float(value), 4) for name, value in figures.items()}, "cpu_seconds": round(seconds, 4)}


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--biotite", action="store_true")
    options = parser.parse_args()
    chains = chains_of(options.folder)
    source = random.Random(options.seed)
    pairs = [tuple(source.sample(chains, 2)) for _ in range(options.pairs)]
    theirs, seconds = measured(pairs, by_tm_align)  # type: ignore[arg-type]
    result: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu")),
        "chains": len(chains),
        "pairs": len(pairs),
        "tm_align_cpu_seconds": round(seconds, 4),
    }
    variants: dict[str, Callable[[Chain, Chain], Scores]] = {
        "thorough": lambda a, b: ours(a, b, thorough=True),
        "quick": lambda a, b: ours(a, b, thorough=False),
    }
    if options.biotite:
        variants["biotite"] = by_biotite
    for name, score in variants.items():
        scores, seconds = measured(pairs, score)  # type: ignore[arg-type]
        result[name] = compared(scores, theirs, seconds)
    report(result)


if __name__ == "__main__":
    main()
