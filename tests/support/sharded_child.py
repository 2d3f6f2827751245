"""What a process of a sharding strategy does in tests: bring a model, or its outline, wrap it, and leave what it found on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from protlig_dd.errors import ConfigError
from protlig_dd.training import sharded, zero3
from protlig_dd.training.distributed import start
from protlig_dd.training.optim import OptimSettings, make_optimizer
from protlig_dd.training.strategies import Single, local_part
from tests.support.toy import CPU

WIDTH, ROWS, NUM_BLOCKS = 16, 24, 8
REFUSED = 3  # exit code
SETTINGS = OptimSettings(lr=0.01)


class Layer(nn.Module):
    """A frozen matrix in half precision, beside which a float32 one is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(WIDTH, 4 * WIDTH, dtype=torch.bfloat16).requires_grad_(False)
        self.trained = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.trained(self.frozen(x.bfloat16()).float())


class Tied(nn.Module):
    """An embedding that is the head too, blocks of two types, a buffer that checkpoints keep and one that they do not."""

    kept: Tensor
    left_out: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ROWS, WIDTH)
        self.blocks = nn.ModuleList(Layer() for _ in range(NUM_BLOCKS))
        self.head = nn.Linear(WIDTH, ROWS, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("kept", torch.rand(WIDTH))
        self.register_buffer("left_out", torch.rand(()), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.kept + self.left_out
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits


def built(seed: int) -> Tied:
    """Return the model with weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tied()


def outline() -> Tied:
    """Return the model without weights."""
    with torch.device("meta"):
        return Tied()


def wrap_child(folder: Path, strategy: str, brought: str) -> None:
    """Wrap a model that only rank 0 has, or whose weights differ between processes; leave states, outputs and the peak on disk."""
    chosen = start(strategy, CPU, timeout_seconds=200.0)
    rank = chosen.rank
    model = outline() if rank and brought == "empty" else built(rank)
    if rank and brought == "another type":
        model.blocks[1].frozen.to(torch.float32)
    held: list[int] = []
    try:
        with Watch(model, held):
            chosen.wrap(model, partial(make_optimizer, settings=SETTINGS), clip_norm=0.0, accumulation=1)
    except ConfigError as error:
        (folder / f"refused_{rank}.txt").write_text(str(error))
        raise SystemExit(REFUSED) from error
    facts = {
        "held": max(held),
        "is_tied": chosen.module.head.weight is chosen.module.embedding.weight,
        "trained": [name for name, _ in chosen.named],
        "left_out": float(chosen.module.left_out),
    }
    save_file({"kept": chosen.module.kept, "logits": logits_of(chosen.evaluated)}, folder / f"seen_{rank}.safetensors")
    if not rank:
        (folder / "states").mkdir()
    before = chosen.full_state_dict()
    train_step(chosen)
    after = chosen.full_state_dict()
    if rank == 0:
        for name, state in {"before": before, "after": after}.items():
            save_file({k: v.clone() for k, v in state.items()}, folder / "states" / f"{name}.safetensors")
    (folder / f"facts_{rank}.json").write_text(json.dumps(facts))
    chosen.close()


def step_child(folder: Path, strategy: str) -> None:
    """Make four updates, since DeepSpeed plans what to keep once it has seen one; leave what was held in the middle of the last."""
    chosen = start(strategy, CPU, timeout_seconds=200.0)
    chosen.wrap(built(0), partial(make_optimizer, settings=SETTINGS), clip_norm=0.0, accumulation=1)
    held = [train_step(chosen) for _ in range(4)]
    (folder / f"held_{chosen.rank}.json").write_text(json.dumps(held[-1]))
    chosen.close()


def train_step(strategy: Single) -> int:
    """Make an update; return the bytes of the model that this process holds between the forward and the backward pass."""
    with strategy.micro_step(last=True):
        loss = strategy.model(torch.arange(ROWS)).square().mean()
        held = bytes_of(strategy.module)
        strategy.backward(loss)
    strategy.clip()
    strategy.step(SETTINGS.lr)
    return held


def logits_of(model: nn.Module) -> Tensor:
    """Return what a model says of all rows."""
    with torch.no_grad():
        return model(torch.arange(ROWS)).detach().clone()


class Watch:
    """Counts a model's bytes on this process while it is shared out: parts, and what is whole."""

    def __init__(self, model: nn.Module, held: list[int]) -> None:
        self.model, self.held = model, held
        self.patches = [mock.patch.object(module, "place", self.place) for module in (sharded, zero3)]

    def __enter__(self) -> None:
        for patch in self.patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self.patches:
            patch.stop()

    def place(self, places: sharded.Places, device: torch.device, send: Callable[[Tensor], None]) -> None:
        def counted(value: Tensor) -> None:
            self.held.append(bytes_of(self.model))
            send(value)

        real_place(places, device, counted)


real_place = sharded.place


def bytes_of(model: nn.Module) -> int:
    """Return the bytes of a model's tensors that this process holds, parts and whole ones."""
    total = 0
    for value in (*model.parameters(), *model.buffers()):
        own = [local_part(value.detach()), *([value.ds_tensor] if hasattr(value, "ds_tensor") else [])]
        total += sum(part.numel() * part.element_size() for part in own if not part.is_meta)
    return total
