"""Training strategies for one process and for DDP. FSDP2 is in `sharded.py`, ZeRO-3 in `zero3.py`.

A strategy wraps a model and its optimiser, runs the backward pass, clips, steps, and saves and loads whole (unsharded) states, so that a
checkpoint does not depend on the number of processes. Gradients are averaged over the processes: the trainer multiplies its loss by their
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from protlig_dd.checkpoints.matching import require_names, require_same_shapes
from protlig_dd.device import DeviceChoice
from protlig_dd.training.optim import EMA, state_fields
from protlig_dd.training.peers import Peers

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
State = Mapping[str, Tensor] | None


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Index of this process: `rank` of `world` in the run, `local_rank` on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


class Single:
    """One process; the base class of all strategies.

    After `wrap`: `model` is the wrapped model to call, `module` the model inside, `optimizer` its optimiser; after `step`: `grad_norm`.
    """

    name = "none"
    can_skip = True  # whether `step` can skip an update because of a tensor on the device
    takes_empty = False  # whether processes other than the first may pass a model without weights, on the meta device

    def __init__(self, choice: DeviceChoice, processes: Processes | None = None) -> None:
        self.choice, self.device = choice, choice.device
        self.processes = processes or Processes()
        self.rank, self.world = self.processes.rank, self.processes.world
        self.grad_norm: Tensor | None = None
        self.peers = Peers()

    def wrap(self, module: nn.Module, make_optimizer: MakeOptimizer, *, clip_norm: float, accumulation: int) -> None:
        """Wrap a model: move, replicate or shard it, and create its optimiser."""
        self.clip_norm = clip_norm
        self.module = self._place(module)
        self.model = self._share(self.module)
        self.optimizer = make_optimizer(self.module)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.choice.needs_scaler)
        self.named = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]

    def _place(self, module: nn.Module) -> nn.Module:
        return module.to(self.device)

    def _share(self, module: nn.Module) -> nn.Module:
        return module

    @property
    def evaluated(self) -> nn.Module:
        """The module to call outside training."""
        return self.module

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Return the context of one micro-batch, forward and backward; gradients are exchanged in the step's last one."""
        return nullcontext()

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the forward pass: autocast in the chosen dtype."""
        if not self.choice.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, self.choice.dtype)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""
        if self.scaler.is_enabled():
            loss = self.scaler.scale(loss)
        loss.backward()

    def clip(self) -> Tensor | None:
        """Clip the gradients; return their norm over all parameters and processes before clipping, or None if `step` clips.

        A parameter without a gradient gets a gradient of zeros, so that every strategy updates the same parameters.
        """
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        for _, p in self.named:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        grads = [local_part(p.grad) for _, p in self.named if p.grad is not None]
        norm = self._reduce_norm(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
        # On an accelerator the comparison would wait for the device, so the product is always computed there.
        if self.clip_norm and (self.device.type != "cpu" or float(norm) > self.clip_norm):
            torch._foreach_mul_(grads, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self.grad_norm = norm
        return norm

    def _reduce_norm(self, norm: Tensor) -> Tensor:
        return norm

    def step(self, lr: float, skip: Tensor | None = None) -> None:
        """Update the weights with a learning rate and clear the gradients; nothing changes if `skip` is 1 on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]  # read by torch's fused kernels, as for GradScaler
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def shards(self) -> list[Tensor]:
        """Return this process's part of each trained parameter, sharing its memory."""
        return [local_part(p.detach()) for _, p in self.named]

    @contextmanager
    def averaged(self, ema: EMA) -> Iterator[None]:
        """Replace the trained weights by the averaged ones in the block."""
        with ema.applied():
            self._forget_gathered()
            try:
                yield
            finally:
                self._forget_gathered()

    def _forget_gathered(self) -> None:
        """Free gathered copies of sharded weights, which are stale once the shards are written."""

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return copies of all weights and buffers on the host, on rank 0; an empty mapping elsewhere. All ranks must call it."""
        return self._on_host((name, self._gather(value)) for name, value in self.module.state_dict().items())

    def _on_host(self, gathered: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Copies of whole tensors on rank 0's host; all ranks iterate over them, since gathering one needs all."""
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in gathered if self.rank == 0}

    def load_full_state_dict(self, state: State) -> None:
        """Load all weights and buffers from rank 0's mapping; all other ranks pass None.

        Raises:
            CheckpointError: if names or shapes differ.
        """
        own = self.module.state_dict()
        if state is not None:
            require_same_shapes(state, {name: tuple(value.shape) for name, value in own.items()})
        with torch.no_grad():
            for name, value in own.items():
                local_part(value).copy_(local_part(self._scatter(None if state is None else state[name], value)))

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the whole state of the optimiser as `<parameter>/<field>`, on rank 0; an empty mapping elsewhere."""
        states = ((name, self.optimizer.state.get(p, {})) for name, p in self.named)
        return self._on_host((f"{name}/{field}", self._gather(value)) for name, own in states for field, value in own.items())

    def load_optimizer_state(self, state: State) -> None:
        """Load the optimiser's state from rank 0's mapping; all other ranks pass None.

        Raises:
            CheckpointError: if a parameter's state is missing.
        """
        fields = {id(p): state_fields(group) for group in self.optimizer.param_groups for p in group["params"]}
        if state is not None:
            require_names(state, [f"{n}/{field}" for n, p in self.named for field in fields[id(p)]], "optimizer.safetensors")
        place = {id(p): i for i, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"])}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, p in self.named:
            step = torch.zeros((), device=self.device)
            entries[place[id(p)]] = {
                field: self._scatter((state or {}).get(f"{name}/{field}"), step if field == "step" else p.detach())
                for field in fields[id(p)]
            }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})

    def _gather(self, value: Tensor) -> Tensor:
        return value

    def _scatter(self, value: Tensor | None, like: Tensor) -> Tensor:
        assert value is not None
        return value.to(like.device, like.dtype)

    def sum_over_ranks(self, values: Sequence[float | int]) -> list[float]:
        """Return sums of host numbers over all processes, without waiting for the device."""
        return [float(v) for v in values]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value."""
        return value

    def barrier(self) -> None:
        """Wait until every process reaches this call."""

    def close(self) -> None:
        """Leave the process group."""


class Ddp(Single):
    """Every process has the whole model and a part of the batch; gradients are averaged."""

    name = "ddp"

    def __init__(self, choice: DeviceChoice, processes: Processes | None = None) -> None:
        super().__init__(choice, processes)
        # Host numbers are exchanged through gloo, so that nothing waits for the device.
        self._host = dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else dist.group.WORLD

    def _share(self, module: nn.Module) -> nn.Module:
        # A track may be absent from the batch of one process only, so unused parameters must be detected.
        devices = None if self.device.type == "cpu" else [self.device]
        return nn.parallel.DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True, gradient_as_bucket_view=True)

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """See `Single.micro_step`."""
        assert isinstance(self.model, nn.parallel.DistributedDataParallel)
        return nullcontext() if last else self.model.no_sync()

    def _scatter(self, value: Tensor | None, like: Tensor) -> Tensor:
        buffer = torch.empty_like(like) if value is None else value.to(like.device, like.dtype).contiguous()
        dist.broadcast(buffer, 0)
        return buffer

    def sum_over_ranks(self, values: Sequence[float | int]) -> list[float]:
        """See `Single.sum_over_ranks`."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._host)
        return [float(v) for v in total]

    def gather(self, value: Any) -> list[Any]:
        """See `Single.gather`."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._host)
        return values

    def broadcast(self, value: Any) -> Any:
        """See `Single.broadcast`."""
        values = [value]
        dist.broadcast_object_list(values, 0, group=self._host, device=torch.device("cpu"))
        return values[0]

    def barrier(self) -> None:
        """See `Single.barrier`."""
        dist.barrier(group=self._host)

    def close(self) -> None:
        """See `Single.close`."""
        if dist.is_initialized():
            dist.destroy_process_group()


def local_part(value: Tensor) -> Tensor:
    """Return this process's part of a tensor, sharing its memory."""
    local = getattr(value, "to_local", None)
    return value if local is None else local()
