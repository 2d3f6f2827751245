"""The six generation tasks of DPLM and DPLM-2 as requests: sequence, inpainting, scaffold, co_generation, folding, inverse_folding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from protlig_dd.data.readers.conditions import read_proteins, read_structures
from protlig_dd.errors import ConfigError
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request
from protlig_dd.structures.scaffolds import read_motif


def task_requests(options: SampleOptions, run: Run, num: int) -> list[Request]:
    """Return the requests of `options.task`: one for each length or input, or `num` scaffolds with linkers of their own.

    Raises:
        ConfigError: for a task that the model's tracks do not allow, or an option that the task lacks.
    """
    make, tracks = _TASKS[options.task]
    missing = [name for name in tracks if name not in run.parts.tracks]
    if missing:
        raise ConfigError(
            f"--task {options.task}: needs a model with the tracks {' and '.join(tracks)}, this one has {', '.join(run.parts.tracks)}; "
            f"use a DPLM-2 model"
        )
    return make(options, num)


def _unconditional(options: SampleOptions, num: int, *, tracks: tuple[str, ...]) -> list[Request]:
    return [Request(name=f"length_{n or 'drawn'}", generate=dict.fromkeys(tracks, n)) for n in options.length or [None]]


def _inpainting(options: SampleOptions, num: int) -> list[Request]:
    if options.infill:
        return [Request(name="inpainting", given={"protein": options.infill})]
    if not options.fix or len(options.length) != 1:
        raise ConfigError("--task inpainting: give --infill 'MKT___LV', or --length N with --fix 1-4=ALVE")
    return [Request(name="inpainting", given={"protein": fixed_template(options.length[0], options.fix)})]


def _scaffold(options: SampleOptions, num: int) -> list[Request]:
    if not options.motif or not options.protein:
        raise ConfigError("--task scaffold: give --motif '10-40,A15-34,10-40' and the structure it comes from, --protein file.pdb")
    motif = read_motif(options.motif, options.protein, total=options.total_length)
    templates = [motif.template(i, seed=options.seed) for i in range(num)]
    name = Path(options.protein).stem
    return [
        Request(name=f"{name}_{i}", given={"protein": one.text}, about={"motif": _places(one.segments)}) for i, one in enumerate(templates)
    ]


def _places(segments: Iterable[Sequence[int]]) -> str:
    """Return the residues of the motif's segments in the new sequence, counted from 1: "11-15 40-52"."""
    return " ".join(f"{segment[0] + 1}-{segment[-1] + 1}" for segment in segments)


def _folding(options: SampleOptions, num: int) -> list[Request]:
    if not options.protein:
        raise ConfigError("--task folding: give the sequences, --protein SEQUENCE or FASTA")
    return [Request(name=name, given={"protein": text}, generate={"structure": None}) for name, text in read_proteins(options.protein)]


def _inverse_folding(options: SampleOptions, num: int) -> list[Request]:
    if not options.structure:
        raise ConfigError("--task inverse_folding: give structure tokens, --structure CODES or a FASTA of them")
    return [Request(name=name, given={"structure": text}, generate={"protein": None}) for name, text in read_structures(options.structure)]


_TASKS: dict[str, tuple[Callable[[SampleOptions, int], list[Request]], tuple[str, ...]]] = {
    "sequence": (partial(_unconditional, tracks=("protein",)), ("protein",)),
    "inpainting": (_inpainting, ("protein",)),
    "scaffold": (_scaffold, ("protein",)),
    "co_generation": (partial(_unconditional, tracks=("protein", "structure")), ("protein", "structure")),
    "folding": (_folding, ("protein", "structure")),
    "inverse_folding": (_inverse_folding, ("protein", "structure")),
}


def fixed_template(length: int, fixed: Sequence[str]) -> str:
    """Return a template of `length` residues with those of `--fix 1-4=ALVE`; all others are gaps `_`.

    Raises:
        ConfigError: for a range outside the sequence, of another length than its letters, or overlapping another.

    >>> fixed_template(8, ["1-2=MK", "7=V"])
    'MK____V_'
    """
    template = ["_"] * length
    for one in fixed:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?=([A-Za-z]+)", one)
        if found is None:
            raise ConfigError(f"--fix '{one}': expected FIRST-LAST=LETTERS, counted from 1, such as 1-4=ALVE")
        first, last, letters = int(found[1]), int(found[2] or found[1]), found[3].upper()
        if last - first + 1 != len(letters) or not 1 <= first <= last <= length:
            raise ConfigError(
                f"--fix '{one}': {len(letters)} letters on residues {first} to {last} of {length}; "
                f"expected as many letters as residues, from 1 to {length}"
            )
        if any(letter != "_" for letter in template[first - 1 : last]):
            raise ConfigError(f"--fix '{one}': residues {first} to {last} overlap another --fix; give each residue once")
        template[first - 1 : last] = letters
    if "_" not in template:
        raise ConfigError(f"--fix: all {length} residues are fixed, nothing is left to generate; raise --length")
    return "".join(template)
