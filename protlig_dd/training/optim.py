"""AdamW with decay groups, Muon, learning rates as a pure function of the step, and the exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import refuse_unless

ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")
"""The tensors that AdamW keeps of a parameter."""


@settings
class OptimSettings:
    """The optimiser, learning-rate schedule, gradient clipping and the moving average of the weights.

    Args:
        kind: "adamw"; or "muon": Muon for the matrices of the blocks, AdamW for everything else. Both use the same lr, since Muon's updates
            are scaled to the size of AdamW's. Muon needs whole matrices: one process, or ddp.
        lr: the learning rate after warm-up.
        betas: AdamW's decay rates of the first and second moment, 0 to below 1.
        eps: AdamW's epsilon.
        weight_decay: weight decay of matrices; norms, biases, embeddings and other vectors never decay.
        warmup_steps: updates over which lr rises linearly.
        warmup_start_ratio: learning rate at the start of the warm-up, as a fraction of lr.
        lr_schedule: the schedule after the warm-up, until the last step; "wsd" (warm-up, stable, decay) keeps lr and falls linearly at the end.
        decay_fraction: share of the steps in which "wsd" falls, above 0 to 1.
        min_lr_ratio: learning rate at the end of every schedule but "constant", as a fraction of lr.
        clip_norm: the largest global L2 norm of the gradient; 0 turns clipping off.
        ema_decay: decay of the exponential moving average of the weights, 0 to below 1; 0 keeps no average.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 100
    warmup_start_ratio: float = 0.0
    lr_schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    decay_fraction: float = 0.2
    min_lr_ratio: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("lr", "eps"):
            refuse_unless(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            refuse_unless(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("warmup_start_ratio", "min_lr_ratio"):
            refuse_unless(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a part of lr, from 0 to 1")
        refuse_unless(0 < self.decay_fraction <= 1, "decay_fraction", self.decay_fraction, "a share of the steps, above 0 to 1")
        refuse_unless(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers from 0 to below 1")
        refuse_unless(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 (none) to below 1")


def lr_at(step: int, settings: OptimSettings, total_steps: int) -> float:
    """Return the learning rate of update number `step`, counted from 1 (0 is the start of the warm-up).

    From the last step on the rate stays at its minimum. The predecessor's cosine was not clamped, and rose again.

    >>> [round(lr_at(step, OptimSettings(lr=1.0, warmup_steps=2, min_lr_ratio=0.0), 10), 3) for step in (1, 2, 6, 10)]
    [0.5, 1.0, 0.5, 0.0]
    """
    warmup, start = settings.warmup_steps, settings.warmup_start_ratio
    if step < warmup:
        return settings.lr * (start + (1 - start) * step / warmup)
    if settings.lr_schedule == "constant":
        return settings.lr
    if settings.lr_schedule == "wsd":
        warmup = max(warmup, round(total_steps * (1 - settings.decay_fraction)))
    progress = min(max(step - warmup, 0) / max(total_steps - warmup, 1), 1.0)
    falling = (1 + math.cos(math.pi * progress)) / 2 if settings.lr_schedule == "cosine" else 1 - progress
    return settings.lr * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * falling)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: with weight decay, and without (vectors, scalars, embeddings); frozen parameters are in neither."""
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    trained = [p for p in model.parameters() if p.requires_grad]
    is_matrix = {id(p): len(getattr(p, "ds_shape", p.shape)) > 1 for p in trained}  # ZeRO-3 leaves p itself empty
    decayed = [p for p in trained if is_matrix[id(p)] and id(p) not in embedded]
    kept = [p for p in trained if not is_matrix[id(p)] or id(p) in embedded]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trained parameters: fused AdamW (one kernel per step, on the CPU too), or Muon."""
    groups = decay_groups(model, settings.weight_decay)
    if settings.kind == "muon":
        inside = {id(p) for p in block_matrices(model)}
        matrices = [p for p in model.parameters() if id(p) in inside]
        rest = [{**group, "params": [p for p in group["params"] if id(p) not in inside]} for group in groups]
        return MuonAdamW(matrices, [group for group in rest if group["params"]], settings)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def block_matrices(model: nn.Module) -> list[Tensor]:
    """Return the trained matrices of the Linear layers of a model's blocks: not embeddings, not the first and the last layer."""
    blocks = [block for m in model.modules() if isinstance(m, nn.ModuleList) for block in m]
    weights = [m.weight for block in blocks for m in block.modules() if isinstance(m, nn.Linear)]
    return list({id(p): p for p in weights if p.requires_grad}.values())


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for other parameters, as one optimiser.

    Args:
        matrices: the parameters of Muon, two-dimensional.
        rest: AdamW's groups.
        settings: lr, decay and AdamW's moments. Muon's update is a momentum matrix (0.95, Nesterov) made nearly orthogonal, times
            0.2 sqrt(larger side), the root mean square of AdamW's updates.

    Sources: Jordan et al. 2024 (Muon); Liu et al. 2025, Muon is Scalable for LLM Training, section 2.2 (the scale).
    """

    def __init__(self, matrices: Sequence[Tensor], rest: list[dict[str, Any]], settings: OptimSettings) -> None:
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            decay = settings.weight_decay
            self._parts += [torch.optim.Muon(list(matrices), lr=settings.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]
        if rest:
            self._parts += [torch.optim.AdamW(rest, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)]
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters; nothing changes if `found_inf` is 1."""
        skip = getattr(self, "found_inf", None)
        if skip is not None and bool(skip):
            return
        for part in self._parts:  # linked again in every step, since load_state_dict replaces groups and state
            is_muon = isinstance(part, torch.optim.Muon)
            part.param_groups = [group for group in self.param_groups if ("ns_steps" in group) == is_muon]
            part.state = self.state
            part.step()


def state_fields(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the tensors that an optimiser keeps of each parameter of a group."""
    return ("momentum_buffer",) if "ns_steps" in group else ADAMW_STATE


class EMA:
    """Exponential moving average: shadow -= (1 - d) (shadow - p), d = min(decay, (1 + k) / (10 + k)) at update k from 1.

    The tensors are this process's parts of the parameters, so whole and sharded models use the same class.

    Args:
        parameters: the tensors to average, in float32; updated in place by the optimiser.
        decay: the decay reached after the warm-up; 0 keeps no average.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = [p.detach() for p in parameters]
        self.shadow: list[Tensor] = [p.clone() for p in self._parameters] if decay else []

    def __bool__(self) -> bool:
        return bool(self.decay)

    def update(self) -> None:
        """Update the average with the current parameters."""
        if not self.decay:
            return
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.shadow, self._parameters, 1 - decay)

    def reset(self, num_updates: int = 0) -> None:
        """Set the average to the current parameters."""
        self.num_updates = num_updates
        if self.decay:
            torch._foreach_copy_(self.shadow, self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by their averages in the block, and restore them at its end. No effect without averages."""
        if not self.decay:
            yield
            return
        with torch.no_grad():
            saved = [p.clone() for p in self._parameters]
            torch._foreach_copy_(self._parameters, self.shadow)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, saved)

    def state_dict(self) -> dict[str, Any]:
        """Return the update count and the averages."""
        return {"num_updates": self.num_updates, "shadow": [s.clone() for s in self.shadow]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a `state_dict`.

        Raises:
            ValueError: if its shapes differ.
        """
        found, own = [tuple(s.shape) for s in state["shadow"]], [tuple(s.shape) for s in self.shadow]
        if found != own:
            raise ValueError(f"EMA state: found shapes {found[:3]}..., expected {own[:3]}...; it belongs to another model")
        self.num_updates = int(state["num_updates"])
        if self.shadow:
            torch._foreach_copy_(self.shadow, list(state["shadow"]))
