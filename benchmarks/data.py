"""Reading and collation against the training rate on one core; the time of `protlig --help`; the peak memory of `protlig prepare shards`.

    python benchmarks/data.py [--rounds 5] [--megabytes 20 200] [--full]

The pairs are the demo's, written to a CSV and read again, and the training step is the demo's: the smallest model trained in practice,
hence the highest rate that reading has to keep up with. Reading and training alternate in one process on one thread; the ratio of CPU times
is valid on a machine with other load too. `--full` also measures the memory on 2 GB of generated FASTA.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Seconds, describe_machine, drawn_lengths, interleaved, report

from protlig_dd.data.bundle import read_table
from protlig_dd.data.loader import Loader
from protlig_dd.data.settings import PairData
from protlig_dd.data.synthetic.textbook import DemoWorld, generate
from protlig_dd.device import choose_device
from protlig_dd.runs.experiment import Parts, load_experiment

SEED, NUM_PAIRS, BATCH_SIZE, LEARNING_RATE = 0, 2000, 64, 1e-3
NUM_BATCHES = NUM_PAIRS // BATCH_SIZE
HELP_RUNS, HELP_SECONDS = 5, 0.7
RESIDUES, LINE, PROTEIN_CAP = b"LAGVESIKRDTPNQFYMHCW", 60, 500
TARGETS = {"training over data": 20.0, "help_seconds": HELP_SECONDS, "memory, largest over smallest file": 1.1}

HELP = """
import sys
from protlig_dd import cli
try:
    cli.main(["--help"])
except SystemExit:
    sys.stderr.write("torch imported" if "torch" in sys.modules else "torch not imported")
"""
# The peak memory of this process alone: ru_maxrss on Linux includes the peak of the process that started it.
PREPARE = """
import json, pathlib, resource, sys, time
from protlig_dd import cli
begun = time.process_time()
code = cli.main(["prepare", "shards", sys.argv[1], "--out", sys.argv[2]])
status = pathlib.Path("/proc/self/status")
found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
unit = 1 if sys.platform == "darwin" else 1024
peak = int(found[0]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
sys.stderr.write(json.dumps({"code": code, "peak": peak, "cpu": time.process_time() - begun}))
"""


def write_pairs(path: Path) -> None:
    """Write the training pairs of the demo data as a table."""
    world = DemoWorld(seed=SEED, num_train=NUM_PAIRS, num_validation=24, num_test=24)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["protein", "smiles", "label"])
        rows.writerows([pair.protein, pair.ligand, 1] for pair in generate(world)["train"])


def data_and_training(path: Path) -> tuple[int, dict[str, Callable[[int], None]]]:
    """Return the tokens of one pass over a table, and the functions to time: reading it, collating its batches, training on them."""
    parts = Parts(load_experiment("dual_track/demo"))
    choice = choose_device("cpu", precision="fp32")
    data = PairData(path=str(path))
    model, objective = parts.build_model(choice).train(), parts.objective(choice)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    table, _ = read_table(data, path, parts.tracks)
    loader = Loader(table, parts.tracks, batch_size=BATCH_SIZE, seed=SEED)
    batches = [batch for step in range(NUM_BATCHES) for batch in loader.micro_batches(step)]

    def read(_: int) -> None:
        read_table(data, path, parts.tracks)

    def collate(_: int) -> None:
        fresh = Loader(table, parts.tracks, batch_size=BATCH_SIZE, seed=SEED)
        for step in range(NUM_BATCHES):
            fresh.micro_batches(step)

    def train(_: int) -> None:
        for step, batch in enumerate(batches):
            prepared = objective.prepare(batch, step)
            (objective.loss(model, prepared).total / prepared.num_tokens).backward()
            optimizer.step()
            optimizer.zero_grad()

    return sum(batch.num_tokens for batch in batches), {"read": read, "collate": collate, "train": train}


def measure_rates(folder: Path, rounds: int) -> dict[str, Any]:
    """Return tokens per second of reading, collation and training, and the ratio of the first two together to the third."""
    path = folder / "pairs.csv"
    write_pairs(path)
    tokens, variants = data_and_training(path)
    times = interleaved(variants, rounds=rounds, device=torch.device("cpu"))
    rates = {f"{name} tokens per CPU second": round(tokens / _median(seconds, "cpu")) for name, seconds in times.items()}
    return {
        "pairs": NUM_PAIRS,
        "tokens": tokens,
        **rates,
        "training over data": {clock: _ratio(times, ("read", "collate"), clock) for clock in ("wall", "cpu")},
        "training over collation": {clock: _ratio(times, ("collate",), clock) for clock in ("wall", "cpu")},
    }


def _median(seconds: list[Seconds], clock: str) -> float:
    return statistics.median(getattr(one, clock) for one in seconds)


def _ratio(times: dict[str, list[Seconds]], parts: tuple[str, ...], clock: str) -> float:
    """Return the median over rounds of the training time divided by the total time of the parts."""
    rows = zip(times["train"], *(times[name] for name in parts), strict=True)
    return round(statistics.median(getattr(t, clock) / sum(getattr(p, clock) for p in rest) for t, *rest in rows), 1)


def measure_help() -> dict[str, Any]:
    """Return the time of `protlig --help`, the median of several runs after one warm-up run, and whether it imports torch."""
    wall, cpu, told = [], [], ""
    for i in range(HELP_RUNS + 1):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
        after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        told = done.stderr
        if i:
            wall.append(ended - begun)
            cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        "wall_seconds": round(statistics.median(wall), 3),
        "cpu_seconds": round(statistics.median(cpu), 3),
        "runs": HELP_RUNS,
        "torch": told,
    }


def write_fasta(path: Path, megabytes: float) -> int:
    """Write random proteins as FASTA, up to about the given number of megabytes (10^6 bytes), and return their number."""
    source = np.random.default_rng(SEED)
    pool = source.choice(np.frombuffer(RESIDUES, np.uint8), size=1_000_000).tobytes()
    lengths = drawn_lengths(count=20_000, cap=PROTEIN_CAP, seed=SEED)
    starts = source.integers(0, len(pool) - PROTEIN_CAP, size=1 << 16).tolist()
    written = count = 0
    with path.open("wb") as file:
        while written < megabytes * 1e6:
            length, start = lengths[count % len(lengths)], starts[count % len(starts)]
            body = pool[start : start + length]
            lines = b"\n".join(body[i : i + LINE] for i in range(0, length, LINE))
            written += file.write(b">protein%d\n%s\n" % (count, lines))
            count += 1
    return count


def measure_prepare(folder: Path, megabytes: list[float]) -> dict[str, Any]:
    """Return the peak memory of `protlig prepare shards` for generated FASTA files of the given sizes, each in its own process."""
    rows = []
    for size in sorted(megabytes):
        fasta, out = folder / f"{size:g}.fasta", folder / f"shards{size:g}"
        count = write_fasta(fasta, size)
        run = [sys.executable, "-c", PREPARE, str(fasta), str(out)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        told = json.loads(done.stderr.splitlines()[-1])
        assert told["code"] == 0, done.stderr
        fasta.unlink()
        for shard in out.iterdir():
            shard.unlink()
        rows.append(
            {
                "file_megabytes": size,
                "proteins": count,
                "peak_mebibytes": round(told["peak"] / 2**20, 1),
                "megabytes per CPU second": round(size / told["cpu"], 1),
            }
        )
    ratio = rows[-1]["peak_mebibytes"] / rows[0]["peak_mebibytes"]
    return {"files": rows, "memory, largest over smallest file": round(ratio, 3)}


def main() -> None:
    """Run the three measurements and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[20, 200], help="sizes of the generated FASTA")
    parser.add_argument("--full", action="store_true", help="also 2 GB of FASTA (some minutes)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [*options.megabytes, *([2000] if options.full else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "benchmark": "data",
            "seed": SEED,
            "python": platform.python_version(),
            "machine": describe_machine(torch.device("cpu")),
            "rates": measure_rates(folder, options.rounds),
            "help": measure_help(),
            "prepare_shards": measure_prepare(folder, sizes),
            "targets": TARGETS,
        }
    report(result)


if __name__ == "__main__":
    main()
