"""ZeRO stage 3 by DeepSpeed, called directly, with torch's AdamW.

Everything that depends on DeepSpeed's internals is here: where it stores a process's part of a parameter, and the flat tensors it updates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from protlig_dd.checkpoints.matching import require_names, require_same_shapes
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ConfigError, require
from protlig_dd.training.optim import ADAMW_STATE
from protlig_dd.training.sharded import largest_block, place, places_of, require_same_outline, send_from_rank0
from protlig_dd.training.strategies import Ddp, MakeOptimizer, Processes, State

_COLLECTED = 50_000_000  # largest number of parameters that are prefetched, or whose gradients are reduced together


class Zero3(Ddp):
    """Weights, gradients and optimiser state are sharded over the processes by DeepSpeed (ZeRO stage 3), with torch's AdamW.

    Parameters are moved to the device and sharded one at a time. Trained parameters must have one dtype; frozen ones may have others.

    Args:
        overrides: keys of DeepSpeed's configuration that override ours.
    """

    name = "zero3"
    can_skip = False
    takes_empty = True

    def __init__(self, choice: DeviceChoice, processes: Processes | None = None, *, overrides: Mapping[str, Any] | None = None) -> None:
        super().__init__(choice, processes)
        if choice.needs_scaler:
            raise ConfigError("train.distributed: zero3 does not run in fp16 here; use fsdp, or precision=bf16 or fp32")
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        os.environ.setdefault("LOCAL_RANK", str(self.processes.local_rank))
        self._deepspeed = require("deepspeed", "train.distributed=zero3", extra="deepspeed")
        # Otherwise DeepSpeed compiles a C++ extension for minutes at its first start on a CPU.
        self._deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False)
        self._overrides = dict(overrides or {})

    def wrap(self, module: nn.Module, make_optimizer: MakeOptimizer, *, clip_norm: float, accumulation: int) -> None:
        """See `Single.wrap`."""
        self.clip_norm, self.module = clip_norm, module
        config = self._config(clip_norm, accumulation, elements=largest_block(module))
        require_same_outline(self, module)
        self._shard(module, config)
        self._engine, self._zero, _, _ = self._deepspeed.initialize(model=self.module, optimizer=make_optimizer(self.module), config=config)
        self.model, self.optimizer = self._engine, self._zero.optimizer
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self.named = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]

    def _shard(self, module: nn.Module, config: Mapping[str, Any]) -> None:
        """Give each process its part of rank 0's parameters, and all buffers, including non-persistent ones."""
        first: list[Any] = []

        def send(value: Tensor) -> None:
            if not isinstance(value, nn.Parameter):
                send_from_rank0(value)
            elif first:
                first[0].convert_to_zero_parameters([value])  # broadcasts, keeps this process's part, drops the rest
            else:
                self._deepspeed.zero.Init(module=nn.ParameterList([value]), config_dict_or_path=config)
                first.append(value)

        for places in places_of(module):
            place(places, self.device, send)

    def _config(self, clip_norm: float, accumulation: int, *, elements: int) -> dict[str, Any]:
        """DeepSpeed's configuration for a model whose largest block has `elements` parameters."""
        zero = {
            "stage": 3,
            "overlap_comm": self.device.type != "cpu",
            # DeepSpeed's defaults allow 1e9 gathered parameters at a time, and gradients of 5e8.
            "stage3_max_live_parameters": 2 * elements,
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": min(elements, _COLLECTED),
            "reduce_bucket_size": min(elements, _COLLECTED),
            # Parameters that stay gathered would be stale when their shards are replaced (EMA, loading).
            "stage3_param_persistence_threshold": 0,
        }
        return {
            "train_micro_batch_size_per_gpu": 1,  # batches are made by our loader; only the product must be right
            "gradient_accumulation_steps": accumulation,
            "train_batch_size": accumulation * self.world,
            "gradient_clipping": clip_norm,  # DeepSpeed's own default is 1.0, not off
            "zero_optimization": {**zero, **self._overrides.pop("zero_optimization", {})},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "torch_autocast": {"enabled": self.choice.autocast, "dtype": str(self.choice.dtype).removeprefix("torch.")},
            "steps_per_print": None,
            **self._overrides,
        }

    @property
    def evaluated(self) -> nn.Module:
        """See `Single.evaluated`."""
        return self.model

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """See `Single.micro_step`."""
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def autocast(self) -> AbstractContextManager[None]:
        """See `Single.autocast`; DeepSpeed's engine applies its own."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See `Single.backward`."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def clip(self) -> Tensor | None:
        """See `Single.clip`: DeepSpeed clips in its step."""
        return None

    def step(self, lr: float, skip: Tensor | None = None) -> None:
        """See `Single.step`."""
        assert skip is None
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        self.grad_norm = torch.as_tensor(self._engine.get_global_grad_norm())

    def shards(self) -> list[Tensor]:
        """See `Single.shards`."""
        return [p.ds_tensor for _, p in self.named]  # type: ignore[attr-defined]  # DeepSpeed keeps the part of a parameter there

    def _forget_gathered(self) -> None:
        self._zero.parameter_offload.partition_all_parameters()

    def full_state_dict(self) -> dict[str, Tensor]:
        """See `Single.full_state_dict`."""
        own = self.module.state_dict(keep_vars=True).items()
        parts = ((name, value, getattr(value, "ds_tensor", None)) for name, value in own)
        return self._on_host((name, value if part is None else self._whole(value, part)) for name, value, part in parts)

    def load_full_state_dict(self, state: State) -> None:
        """See `Single.load_full_state_dict`."""
        own = self.module.state_dict(keep_vars=True)
        if state is not None:
            require_same_shapes(state, {name: tuple(getattr(v, "ds_shape", v.shape)) for name, v in own.items()})
        for name, value in own.items():
            part = getattr(value, "ds_tensor", None)
            given = None if state is None else state[name]
            if part is None:
                value.copy_(self._scatter(given, value))
            else:
                part.copy_(self._part(given, value))
        self._zero.refresh_fp32_params()

    def optimizer_state(self) -> dict[str, Tensor]:
        """See `Single.optimizer_state`."""
        whole = {}
        for name, p in self.named:
            flat = self._flat_of(p)
            for field in ADAMW_STATE if flat in self.optimizer.state else ():
                value = self.optimizer.state[flat][field]
                gathered = value if field == "step" else self._whole(p, self._zero.get_local_fp32_param(p, field))
                if self.rank == 0:
                    whole[f"{name}/{field}"] = gathered.to("cpu", copy=True).contiguous()
        return whole

    def load_optimizer_state(self, state: State) -> None:
        """See `Single.load_optimizer_state`."""
        if state is not None:
            require_names(state, [f"{n}/{field}" for n, _ in self.named for field in ADAMW_STATE], "optimizer.safetensors")
        for name, p in self.named:
            flat = self._flat_of(p)
            step = self._scatter(None if state is None else state[f"{name}/step"], torch.zeros((), device=self.device))
            entry = self.optimizer.state[flat]
            entry["step"] = step
            for field in ADAMW_STATE[1:]:
                entry.setdefault(field, torch.zeros_like(flat))
                part = self._part(None if state is None else state[f"{name}/{field}"], p)
                self._zero.set_local_hp_param(part, p, field)

    def _flat_of(self, p: Any) -> Tensor:
        """Return the flat float32 tensor with this process's part of a parameter, which the optimiser updates."""
        group, _, _ = self._zero.grad_position[self._zero.get_param_id(p)]
        flat: Tensor = self._zero.fp32_partitioned_groups_flat[group]
        return flat

    def _whole(self, p: Any, part: Tensor) -> Tensor:
        """Gather the parts of a parameter, or of a tensor of its shape."""
        buffer = torch.empty(part.numel() * self.world, dtype=part.dtype, device=part.device)
        dist.all_gather_into_tensor(buffer, part.contiguous())
        return buffer[: p.ds_numel].view(p.ds_shape)

    def _part(self, whole: Tensor | None, p: Any) -> Tensor:
        """Return this process's part of rank 0's tensor; parts are equal, so the last one is padded."""
        size = p.ds_tensor.numel()
        flat = torch.zeros(size * self.world, dtype=p.ds_tensor.dtype, device=self.device)
        if whole is not None:
            flat[: p.ds_numel].copy_(whole.flatten())
        dist.broadcast(flat, 0)
        return flat.narrow(0, size * self.rank, size)
