"""Small runs of causal models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ADAMW = ("train.optim.kind=adamw", "train.optim.lr=2e-3")  # Muon needs whole matrices

QUICK = (
    *("model.hidden_size=32", "model.num_blocks=2", "model.inner_size=64", "train.batch_size=8"),
    *("train.tracking.tensorboard=false", "train.tracking.wandb=off", "data.leakage=false"),
    *("data.split={kind: random, validation_fraction: 0.2}", "train.log_every=10"),
)


def write_pairs(folder: Path, count: int = 10, seed: int = 0) -> list[str]:
    """Write random proteins of 6 to 14 residues and as many letters; return the overrides that name them."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        length = int(draw.integers(6, 15))
        pairs.append(["".join(draw.choice(list(letters), length)) for letters in (RESIDUES, CODES)])
    for place, name in enumerate(("proteins", "structures")):
        (folder / f"{name}.fasta").write_text("".join(f">p{i}\n{pair[place]}\n" for i, pair in enumerate(pairs)))
    return [f"data.path={folder / 'proteins.fasta'}", f"data.structure_path={folder / 'structures.fasta'}"]


RESIDUES, CODES = "ACDEFGHIKLMNPQRSTVWY", "ACDEFGHIKLMNPQRSTVWY"
