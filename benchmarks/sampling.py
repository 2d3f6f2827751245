"""Seconds and network calls for 100 ligands by each stepper, and their quality.

    python benchmarks/sampling.py [--run RUN] [--rounds 3] [--samples 100] [--steps 250]

With RUN, a trained dual-track run, proteins of its test split are the conditions and the quality of the ligands is printed with their
cost: exact samplers give equal quality, so use the cheapest exact one. Without RUN the network has the demo's shape and random
weights: the cost is the same, the ligands are meaningless. Each round samples with every stepper in turn, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from common import Seconds, describe_machine, interleaved, paired_ratio, report
from torch import nn

from protlig_dd.diffusion.denoiser import Denoiser, Diffusion
from protlig_dd.diffusion.parameterizations import Score
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.evaluation.intervals import wilson
from protlig_dd.evaluation.ligands import read_molecules
from protlig_dd.models import DualTrackSettings
from protlig_dd.rng import generator
from protlig_dd.runs.open import open_run
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, Euler, FirstHitting, Remasking, SamplerSettings, sample
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import Track, TrackBatch, pack

SEED = 0
THREADS = 1
BATCH_SIZE = 50
TARGET = 3.0  # first hitting should take at most a third of the time of ancestral steps
REFERENCE, FASTEST = "ancestral", "first_hitting"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A denoiser, and batches whose ligands are to be generated."""

    name: str
    denoiser: Denoiser
    diffusion: Diffusion
    tracks: Mapping[str, Track]
    batches: tuple[TrackBatch, ...]
    is_trained: bool


def subject(run_folder: str, num: int) -> Subject:
    """Return a trained run with proteins of its test split, or a random network of the demo's shape."""
    if run_folder:
        run = open_run(run_folder, device="cpu")
        table = run.data.test if len(run.data.test) else run.data.validation
        examples = [{t: x.tolist() for t, x in table.example(i % len(table)).items()} for i in range(num)]
        tracks, diffusion, network = run.parts.tracks, run.parts.diffusion, run.model
        name = f"{run.config.name} at step {run.step}"
    else:
        tracks = {"protein": ProteinTrack(max_length=64).build("protein"), "ligand": LigandTrack(max_length=64).build("ligand")}
        examples, name = _random_examples(tracks, num), "random weights, demo shape"
        network = _random_network(tracks)
        parameterizations = {n: Score(process=Absorbing.of(track.vocabulary)) for n, track in tracks.items()}
        diffusion = Diffusion(parameterizations=parameterizations, schedule=LogLinear())
    batches = tuple(
        pack(examples[i : i + BATCH_SIZE], tracks, example_ids=range(i, min(i + BATCH_SIZE, num))) for i in range(0, num, BATCH_SIZE)
    )
    return Subject(name=name, denoiser=network, diffusion=diffusion, tracks=tracks, batches=batches, is_trained=bool(run_folder))


def _random_examples(tracks: Mapping[str, Track], num: int) -> list[dict[str, list[int]]]:
    """Proteins of 24 to 32 residues and ligands of 14 to 26 tokens, as in the demo."""
    source = generator(SEED, "benchmark", "sampling")

    def letters(name: str, low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (1,), generator=source))
        ids = torch.tensor(tracks[name].vocabulary.emittable_ids)
        return ids[torch.randint(len(ids), (length,), generator=source)].tolist()

    return [{"protein": letters("protein", 24, 32), "ligand": letters("ligand", 14, 26)} for _ in range(num)]


def _random_network(tracks: Mapping[str, Track]) -> nn.Module:
    shape = DualTrackSettings(
        hidden_size=64, num_heads=2, num_blocks=2, conditioning_size=64, mlp_ratio=2.0, dropout=0.0, conv_width={"protein": 9}
    )
    torch.manual_seed(SEED)
    return shape.build(tracks, "bucketed").eval()


def steppers(steps: int) -> dict[str, SamplerSettings]:
    """Return the compared steppers by name."""
    return {
        REFERENCE: Ancestral(num_steps=steps),
        "euler": Euler(num_steps=steps),
        FASTEST: FirstHitting(),
        "confidence": ConfidenceUnmasking(num_steps=26),
        "remasking": Remasking(num_steps=100),
    }


class Case:
    """One stepper on the subject; a call is one round, with its own seed."""

    def __init__(self, subject: Subject, stepper: SamplerSettings) -> None:
        self.subject, self.stepper = subject, stepper
        self.num_calls: list[int] = []
        self.texts: list[str] = []

    def __call__(self, round_: int) -> None:
        """Draw all samples of one round."""
        on = self.subject
        drawn = [
            sample(on.denoiser, on.diffusion, batch, generate=("ligand",), sampler=self.stepper, seed=SEED + round_) for batch in on.batches
        ]
        self.num_calls.append(sum(d.num_calls for d in drawn))
        self.texts += [on.tracks["ligand"].decode(row) for d in drawn for row in d.batch.tracks["ligand"].split()]

    def result(self, times: list[Seconds], num: int) -> dict[str, Any]:
        """Return the cost and quality of the samples."""
        found: dict[str, Any] = {
            "exact": self.stepper.exact,
            "wall_seconds_per_100": round(statistics.median(t.wall for t in times) * 100 / num, 3),
            "cpu_seconds_per_100": round(statistics.median(t.cpu for t in times) * 100 / num, 3),
            "network_calls_per_batch": round(self.num_calls[-1] / len(self.subject.batches), 1),
        }
        if self.subject.is_trained:
            found |= quality(self.texts)
        return found


def quality(texts: list[str]) -> dict[str, Any]:
    """Return the valid fraction with its 95 % interval, and the fraction of distinct molecules among the valid ones."""
    molecules = read_molecules(texts)
    valid = wilson(molecules.num_valid, molecules.num_samples)
    return {
        "valid": round(valid.value, 3),
        "valid_interval": [round(valid.low, 3), round(valid.high, 3)],
        "distinct": round(len(set(molecules.smiles)) / max(molecules.num_valid, 1), 3),
    }


def main() -> None:
    """Measure all steppers and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="", help="a trained dual-track run (default: a random network)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=250, help="steps of the ancestral and Euler steppers")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    device = torch.device("cpu")
    on = subject(options.run, options.samples)
    cases = {name: Case(on, stepper) for name, stepper in steppers(options.steps).items()}
    times = interleaved(cases, rounds=options.rounds, device=device, warm_up=0)
    report({
        "benchmark": "sampling", "machine": describe_machine(device), "subject": on.name,
        "settings": {"seed": SEED, "batch_size": BATCH_SIZE, **vars(options)},
        "results": {name: case.result(times[name], options.samples) for name, case in cases.items()},
        "speed_up_of_first_hitting": {
            name: paired_ratio(times[name], times[FASTEST]) for name in cases if name != FASTEST
        },
        "target": {f"{REFERENCE} / {FASTEST}": TARGET},
    })  # fmt: skip


if __name__ == "__main__":
    main()
