#!/usr/bin/env python
"""Plot the training of a structure autoencoder: the error of chains decoded from their own tokens and from another chain's, by step.

python scripts/plot_reconstruction.py runs/kanzi_tiny --out docs/images/kanzi_tiny.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from protlig_dd.errors import require


def series(run: Path, name: str) -> tuple[list[float], list[float]]:
    """Return the steps of a run at which a metric was logged, and its values."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def main() -> None:
    """Read the metrics of a run and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder of protlig train kanzi/tiny")
    parser.add_argument("--out", type=Path, default=Path("reconstruction.png"), help="the picture to write (%(default)s)")
    options = parser.parse_args()
    pyplot = require("matplotlib.pyplot", "plotting a reconstruction", extra="plot")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, label in (("rmsd", "own tokens"), ("rmsd_worst", "own tokens, worst chain"), ("null_rmsd", "another's")):
        left.plot(*series(options.run, f"validation/{name}"), marker=".", label=label)
    left.set(xlabel="step", ylabel="RMSD of decoded chains (Angstrom)", ylim=(0, None))
    left.legend(fontsize="small")
    right.semilogy(*series(options.run, "train/loss"))
    right.set(xlabel="step", ylabel="squared error of the velocity (nm$^2$)")
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
