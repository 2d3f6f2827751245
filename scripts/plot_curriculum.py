#!/usr/bin/env python
"""Plot the training loss under a noise curriculum and the validation bound without it, from the metrics of a run.

python scripts/plot_curriculum.py runs/curriculum --out docs/images/curriculum.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.diffusion.schedules import ramp_up
from protlig_dd.errors import require


def series(run: Path, name: str) -> tuple[list[float], list[float]]:
    """Return the steps of a run at which a metric was logged, and its values."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def main() -> None:
    """Read the metrics of a run and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder trained with diffusion.curriculum")
    parser.add_argument("--out", type=Path, default=Path("curriculum.png"), help="the picture to write (%(default)s)")
    options = parser.parse_args()
    curriculum = read_config_file(options.run / "config.yaml")["diffusion"]["curriculum"]
    if not curriculum:
        parser.error(f"{options.run}: trained without diffusion.curriculum; expected a run that has one")
    pyplot = require("matplotlib.pyplot", "plotting a curriculum", extra="plot")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*series(options.run, "train/loss"), label="training loss, under the curriculum", alpha=0.7)
    axes.plot(*series(options.run, "validation/nll"), label="validation bound, no curriculum", marker=".")
    axes.set(xlabel="step", ylabel="nats per token")
    last = int(axes.get_xlim()[1])
    factors = [curriculum["start"] + (1 - curriculum["start"]) * ramp_up(curriculum["ramp"], s / curriculum["steps"]) for s in range(last)]
    scale = axes.twinx()
    scale.plot(factors, color="gray", linestyle=":", label="factor on sigma (right)")
    scale.set(ylim=(0, 1.05), ylabel="factor on sigma")
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(options.out, dpi=130)


if __name__ == "__main__":
    main()
