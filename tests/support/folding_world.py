"""A small world in which structures can be folded: helices as PDB files and as a Foldseek database, an autoencoder of them, their tokens, and the
configuration in a published file of an autoencoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from protlig_dd.cli.entry import main
from protlig_dd.data.foldseek.writer import Entry, write_database
from protlig_dd.kanzi.model import KanziSettings
from protlig_dd.structures.structure_io import Chain, read_structure, write_pdb

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TRAIN = ["--device", "cpu", "train.log_every=1", "train.tracking.tensorboard=false", "train.tracking.wandb=off"]
STEPS = ["train.steps=1", "train.checkpoint_every=1", "train.validate_every=0"]
MODEL = [*("model.hidden_size=16", "model.num_heads=2", "model.num_kv_heads=1", "model.num_blocks=1"), "model.inner_size=32"]
"""A causal model's smallest shape."""


def write_world(root: Path, count: int = 6) -> None:
    """Write root/pdbs, the run root/kanzi, the tokens root/t.fasta and root/t_kanzi.fasta, and the database root/truth."""
    (root / "pdbs").mkdir()
    draws = np.random.default_rng(0)
    for i in range(count):
        n = 9 + i
        t = np.arange(n)
        points = np.stack([2.3 * np.cos(1.745 * t), 2.3 * np.sin(1.745 * t), 1.5 * t], axis=1)
        points = (points + 0.1 * draws.normal(size=(n, 3))).astype(np.float32)
        sequence = "".join(draws.choice(list(LETTERS), n))
        write_pdb(Chain.of_coordinates(sequence, points[:, None]), root / "pdbs" / f"h{i}.pdb")
    train_kanzi(root, "kanzi")
    tokens = ["--track", "kanzi", "--tokenizer", str(root / "kanzi"), "--device", "cpu", "--out", str(root / "t.fasta")]
    assert main(["tokenize", str(root / "pdbs"), *tokens]) == 0
    write_truth(root / "truth", root)


def train_kanzi(root: Path, name: str, *overrides: str) -> None:
    """Train an autoencoder of the chains for one step, as the run root/name."""
    small = [
        *("model.encoder_size=16", "model.encoder_heads=2", "model.pair_size=8", "model.decoder_size=16"),
        *("model.decoder_heads=2", "data.min_length=4", "data.copies=2", "train.batch_size=4", "sampling.num_steps=4"),
    ]
    data = f"data.path={root / 'pdbs'}"
    assert main(["train", "kanzi/tiny", data, *small, *STEPS, *TRAIN, *overrides, "--out", str(root / name)]) == 0


def write_truth(path: Path, root: Path, *, leave_out: int = 0, cut: int = 0) -> None:
    """Write the chains of the tokens as a database with C-alphas, without the first `leave_out`, each shorter by `cut` residues."""
    lines = (root / "t.fasta").read_text().splitlines()
    chains = [(a[1:].split()[0], b) for a, b in zip(lines[::2], lines[1::2], strict=True)]
    entries = []
    for name, text in chains[leave_out:]:
        points = np.asarray(read_structure(root / "pdbs" / f"{name}.pdb").chains[0].ca, dtype=np.float64)
        size = len(text) - cut
        entries.append(Entry(name=name, sequence=text[:size], structure="D" * size, ca_angstrom=points[:size]))
    write_database(path, entries)


def files_of(root: Path) -> list[str]:
    """Return the overrides that name the world's tokens, for training and validation alike."""
    return [
        f"data.path={root / 't.fasta'}",
        f"data.structure_path={root / 't_kanzi.fasta'}",
        f"data.validation_path={root / 't.fasta'}",
        f"data.validation_structure_path={root / 't_kanzi.fasta'}",
        *("data.leakage=false", "train.batch_size=4"),
    ]


def published_values(settings: KanziSettings) -> dict[str, Any]:
    """Return the `model_cfg` of a published file with this shape, without the entries that it leaves at their defaults."""
    assert settings.encoder_heads == settings.decoder_heads, settings
    return {
        "n_channels_encoder": settings.encoder_size,
        "n_channels_decoder": settings.decoder_size,
        "n_layers_encoder": settings.encoder_blocks,
        "n_layers_decoder": settings.decoder_blocks,
        "n_channels_pair": settings.pair_size,
        "n_heads": settings.encoder_heads,
        "mlp_factor": round(settings.mlp_ratio),
        "use_qknorm": settings.normed_queries,
        "window_size": settings.window,
        "levels": settings.levels,
    }
