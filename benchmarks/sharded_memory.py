"""Peak host memory of each of two processes that shard a causal model: while distributing it, in a training step, and while saving.

    python benchmarks/sharded_memory.py [--strategies fsdp zero3] [--blocks 16] [--hidden 1024]

The measure is the kernel's VmHWM of /proc/self/status, above the memory of the process after its libraries were loaded and the process group was
started; the high-water mark is reset before each phase. On a CPU, host and device share memory, so the figures of rank 0 include the host copy of
the weights that it distributes and, while saving, the gathered checkpoint. "whole" is the cost where each process builds the complete
model; "rank 0" is the method of `protlig train`. The floor of distributing is one shard plus the largest piece that is sent
at once: a block or the rest for fsdp, a parameter for zero3.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.device import choose_device
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.tokens.tracks import Layout
from protlig_dd.training import distributed
from protlig_dd.training.optim import OptimSettings, make_optimizer
from protlig_dd.training.sharded import blocks_of

WORLD, TOKENS, MB = 2, 256, 1e6
STEPS = 3  # DeepSpeed plans its parameter fetches from the second step on
PARTS = ("build", "share out", "step", "save")


def main() -> None:
    """Start the processes of each case and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["fsdp", "zero3"], choices=["fsdp", "zero3"])
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(measure(options)) + "\n")
        return
    header = f"| strategy | built by | rank | {' | '.join(PARTS)} | floor |\n|{'---|' * (len(PARTS) + 4)}\n"
    for strategy in options.strategies:
        for how in ("whole", "rank 0"):
            for rank, found in enumerate(run_case(options, f"{strategy},{how}")):
                if header:
                    size = found["parameters"] / MB
                    sys.stdout.write(f"{size:,.0f} M parameters, {4 * size:,.0f} MB in float32; MB above the start\n\n{header}")
                    header = ""
                figures = " | ".join(f"{found[part]:,.0f}" for part in (*PARTS, "floor"))
                sys.stdout.write(f"| {strategy} | {how} | {rank} | {figures} |\n")
                sys.stdout.flush()


def run_case(options: argparse.Namespace, child: str) -> list[dict[str, float]]:
    """Return the figures of each process of a case."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, __file__, "--child", child, "--blocks", str(options.blocks), "--hidden", str(options.hidden)]
    common = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    # Freed memory is returned to the kernel at once; otherwise the marks would include memory that malloc keeps.
    common |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(WORLD)
    ]
    texts = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"'{child}' failed; run it with --child to see why, as rank 0 of WORLD_SIZE=1")
    return [json.loads(text.splitlines()[-1]) for text in texts]


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the peaks of this process in MB above its start, by phase."""
    name, how = options.child.split(",")
    choice = choose_device("cpu", precision="fp32")
    strategy = distributed.start(name, choice)
    sizes = {"hidden_size": options.hidden, "inner_size": 4 * options.hidden, "num_blocks": options.blocks}
    shape = [f"model.{key}={value}" for key, value in {**sizes, "num_heads": 16, "num_kv_heads": 4}.items()]
    parts = Parts(load_experiment("structure/3di_tiny", [*shape, "model.parameters=null", "data.path=unused"]))
    parts.build_model(choice, where="meta")  # loads the libraries
    strategy.barrier()
    peaks: dict[str, float] = {}
    start = memory("VmRSS")

    @contextmanager
    def part(label: str) -> Iterator[None]:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        yield
        peaks[label] = memory("VmHWM") - start

    with part("build"):
        model: Any = parts.build_model(choice, where="host" if how == "whole" or strategy.rank == 0 else "meta")
    floor, parameters = floor_of(model, name), count_parameters(model)
    settings = OptimSettings()
    with part("share out"):
        strategy.wrap(model, partial(make_optimizer, settings=settings), clip_norm=settings.clip_norm, accumulation=1)
    del model
    with part("step"):
        tokens = torch.randint(40, (TOKENS,), generator=torch.Generator().manual_seed(strategy.rank))
        for _ in range(STEPS):
            with strategy.micro_step(last=True):
                strategy.backward(strategy.model(tokens, Layout((TOKENS,), tokens.device)).square().mean())
            strategy.clip()
            strategy.step(settings.lr)
    with part("save"):
        strategy.full_state_dict(), strategy.optimizer_state()
    strategy.barrier()
    strategy.close()
    return {**peaks, "floor": floor, "parameters": parameters}


def memory(field: str) -> float:
    """Return a field of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith(f"{field}:"))


def floor_of(model: Any, name: str) -> float:
    """Return the size in MB of one shard plus the largest piece that is sent at once."""
    sizes = {parameter: parameter.numel() * 4 / MB for parameter in model.parameters()}
    total = sum(sizes.values())
    blocks = [sum(sizes[p] for p in block.parameters()) for block in blocks_of(model)]
    largest = max(sizes.values()) if name == "zero3" else max(*blocks, total - sum(blocks))
    return total / WORLD + largest


if __name__ == "__main__":
    main()
