"""Sharded training for models larger than one device: common functions, and FSDP2 on plain torch. ZeRO-3 is in `zero3.py`.

Every process must call every submodule in every forward pass, if necessary on empty tensors: these strategies exchange data in the calls
and wait for each other there. Weights come from rank 0's host, one tensor at a time; other processes may pass a model on the meta device,
with the same names, shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from protlig_dd.errors import ConfigError
from protlig_dd.training.strategies import Ddp

Places = list[tuple[nn.Module, str]]


class Fsdp(Ddp):
    """Weights, gradients and optimiser state are sharded over the processes (FSDP2), by block of a ModuleList and the rest.

    Blocks are moved to the device and sharded one at a time, so a device has its shards and one whole block.
    """

    name = "fsdp"
    can_skip = False
    takes_empty = True

    def _place(self, module: nn.Module) -> nn.Module:
        require_same_outline(self, module)
        return module

    def _share(self, module: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        waiting = places_of(module)
        for unit in (*blocks_of(module), module):
            inside = set(unit.modules())
            for places in waiting:
                if places[0][0] in inside:
                    place(places, self.device, send_from_rank0)
            waiting = [places for places in waiting if places[0][0] not in inside]
            # The root is resharded after a forward pass too: otherwise it would not see what EMA and loading write into the shards.
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        return module

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """See `Single.micro_step`."""
        self.module.set_requires_gradient_sync(last)  # type: ignore[operator]  # fully_shard adds this method
        return nullcontext()

    def _reduce_norm(self, norm: Tensor) -> Tensor:
        squared = norm.square()
        dist.all_reduce(squared)
        return squared.sqrt()

    def _gather(self, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value

    def _scatter(self, value: Tensor | None, like: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return super()._scatter(value, like)
        whole = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        if value is not None:
            whole.copy_(value)
        return distribute_tensor(whole, like.device_mesh, like.placements)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the members of the outermost ModuleLists of a model: its blocks."""
    found: list[nn.Module] = []
    for child in module.children():
        found.extend(child if isinstance(child, nn.ModuleList) else blocks_of(child))
    return found


def largest_block(module: nn.Module) -> int:
    """Return the number of parameters of a model's largest block, or of the model if it has no blocks."""
    return max(sum(p.numel() for p in block.parameters()) for block in blocks_of(module) or [module])


def places_of(module: nn.Module) -> list[Places]:
    """Return the owning modules and names of each parameter and buffer of a model; several for a shared (tied) one."""
    found: dict[int, Places] = {}
    for owner in module.modules():
        parameters = owner.named_parameters(recurse=False, remove_duplicate=False)
        for name, value in (*parameters, *owner.named_buffers(recurse=False, remove_duplicate=False)):
            found.setdefault(id(value), []).append((owner, name))
    return list(found.values())


def place(places: Places, device: torch.device, send: Callable[[Tensor], None]) -> None:
    """Move a tensor of a model to the device, or allocate it if it is on the meta device, and fill it with `send`.

    Args:
        places: owners from `places_of`; no other reference to the tensor may exist, or its host memory is not freed.
        device: the device.
        send: copies rank 0's values into it, and may shard it.
    """
    value = getattr(*places[0])
    if value.is_meta:
        made = torch.empty_like(value, device=device)
        if isinstance(value, nn.Parameter):
            made = nn.Parameter(made, requires_grad=value.requires_grad)
        for owner, name in places:
            setattr(owner, name, made)
        value = made
    else:
        value.data = value.data.to(device).contiguous()
    send(value)


def send_from_rank0(value: Tensor) -> None:
    """Broadcast rank 0's values of a contiguous tensor, in place; as bytes, since back-ends do not support every dtype."""
    if value.numel():
        dist.broadcast(value.detach().view(-1).view(torch.uint8), 0)


def require_same_outline(strategy: Ddp, module: nn.Module) -> None:
    """Check that the models of all processes have the same names, shapes and dtypes; otherwise tensors would get wrong values.

    Raises:
        ConfigError: on all processes, with the first difference.
    """
    values = (*module.named_parameters(), *module.named_buffers())
    own = [f"{name} {tuple(value.shape)} {value.dtype} {'trained' if value.requires_grad else 'frozen'}" for name, value in values]
    first: list[str] = strategy.broadcast(own)
    differing: tuple[Any, Any] | None = None
    if own != first:
        longest = max(len(own), len(first))
        mine, theirs = (lines + ["nothing more"] * (longest - len(lines)) for lines in (own, first))
        differing = next((a, b) for a, b in zip(mine, theirs, strict=True) if a != b)
    for rank, found in enumerate(strategy.gather(differing)):
        if found is not None:
            raise ConfigError(
                f"train.distributed={strategy.name}: process {rank} has '{found[0]}' in its model where process 0 has '{found[1]}'; "
                f"expected the same model; start all nodes with the same config, package and base"
            )
