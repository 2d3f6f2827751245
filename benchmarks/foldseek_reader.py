"""The reader of Foldseek databases against a plain Python reader: opening, building the binary index, random reads, C-alpha coordinates.

    python benchmarks/foldseek_reader.py [--entries 5000000] [--distinct 500000] [--length 300] [--rounds 3]

A database of `--entries` rows is generated in a temporary folder and removed afterwards. Its rows share `--distinct` entries of data (row
i has the data of i modulo that number), so that 5 million take 2 GB of disk instead of 12; the indices have their full size. Opening, building
and making training data are each measured in a separate process; reading alternates with the plain reader, which keeps the index as a list
of tuples and slices and decodes each entry in Python. Rates are entries per second of CPU time, on one thread, in random order.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Seconds, describe_machine, interleaved, report

from protlig_dd.data.foldseek.calpha import difference_size
from protlig_dd.data.foldseek.pairs import PairedFoldseekDB

SEED, READS, PLAIN_READS, BATCH = 0, 200_000, 20_000, 256
BLOCK = 20_000  # entries generated at once
TARGETS = {
    "open_ms": 50.0, "open_mb": 20.0, "build_cpu_seconds_for_5_million": 1.0, "sequences": 500_000, "pairs": 250_000,
    "calpha": 50_000, "calpha_batched": 100_000,
}  # fmt: skip

PROBE = """
import json, pathlib, sys, time
from protlig_dd.data.foldseek.pairs import FoldseekDB, PairedFoldseekDB
from protlig_dd.data.foldseek.index import open_index
def memory(name):
    status = pathlib.Path("/proc/self/status")
    lines = [l for l in status.read_text().splitlines() if l.startswith(name)] if status.exists() else []
    return int(lines[0].split()[1]) / 1024 if lines else float("nan")
what, path = sys.argv[1:]
small = pathlib.Path(path).with_name("small.index")
small.write_text("0\\t0\\t302\\n")
open_index(small, sidecar_from=0)  # import now what is otherwise imported on first use
before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
if what == "build":
    open_index(pathlib.Path(path + ".index"))
elif what == "names":
    names = FoldseekDB(path).names
    names.one_key_of("AF-A000000000-F1-model_v4")
elif what == "train":
    from protlig_dd.data.bundle import load
    from protlig_dd.data.loader import Loader
    from protlig_dd.data.settings import RandomSplit, SequenceData
    from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
    tracks = {
        "protein": ProteinTrack(max_length=514, unknown="X", beside="3di").build("protein"),
        "structure": StructureTrack(alphabet="3di", max_length=514).build("structure"),
    }
    split = RandomSplit(validation_fraction=0.001)
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    bundle = load(SequenceData(path=path, split=split, too_long="drop", leakage=False), tracks)
    loader = Loader(bundle.train, tracks, batch_size=256, seed=0)
    loader.micro_batches(0)
else:
    db = PairedFoldseekDB(path)
    count = len(db)
    db.aa.calphas
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
after = memory("VmHWM" if what in ("build", "names") else "VmRSS")
told = {"wall_ms": wall * 1e3, "cpu_seconds": cpu, "added_mb": after - before}
if what == "names":
    count = pathlib.Path(path + ".lookup.protlig").stat().st_size // 16 - 4
    cpu = time.process_time()
    for i in range(0, count, max(count // 10000, 1)):
        assert names.one_key_of(f"AF-A{i:09d}-F1-model_v4") == i
    told |= {"names_a_second": 10000 / (time.process_time() - cpu)}
if what == "train":
    peak, cpu = memory("VmHWM") - before, time.process_time()
    for step in range(1, 101):
        loader.micro_batches(step)
    told |= {"peak_mb": peak, "pairs_a_second": 25600 / (time.process_time() - cpu)}
print(json.dumps(told))
"""


def write_data(folder: Path, *, distinct: int, length: int) -> None:
    """Write the data of all entries: residues, 3Di letters, and coordinates as 16-bit differences."""
    source = np.random.default_rng(SEED)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    with open(folder / "db", "wb") as aa, open(folder / "db_ss", "wb") as ss, open(folder / "db_ca", "wb") as ca:
        for first in range(0, distinct, BLOCK):
            count = min(BLOCK, distinct - first)
            for file in (aa, ss):
                block = np.zeros((count, length + 2), np.uint8)
                block[:, :length] = letters[source.integers(0, 20, (count, length), dtype=np.uint8)]
                block[:, length] = ord("\n")
                file.write(block.tobytes())
            steps = np.zeros((count, 3 * length + 4), np.int16)
            axes = steps[:, :-1].reshape(count, 3, length + 1)
            axes[:, :, 2:] = source.integers(-3800, 3800, (count, 3, length - 1), dtype=np.int16)
            axes[:, :, 0] = source.integers(-30_000, 30_000, (count, 3), dtype=np.int16)
            axes[:, :, 1] = np.where(axes[:, :, 0] < 0, -1, 0)
            ca.write(steps.tobytes())


def write_index(path: Path, *, entries: int, distinct: int, size: int) -> None:
    """Write an index whose rows share data entries."""
    with path.open("w") as file:
        for first in range(0, entries, 100_000):
            rows = range(first, min(first + 100_000, entries))
            file.write("".join([f"{i}\t{i % distinct * size}\t{size}\n" for i in rows]))


def write_database(folder: Path, *, entries: int, distinct: int, length: int) -> Path:
    """Write a database; a second index, "tenth.index", has a tenth of the rows."""
    write_data(folder, distinct=distinct, length=length)
    write_index(folder / "db.index", entries=entries, distinct=distinct, size=length + 2)
    shutil.copyfile(folder / "db.index", folder / "db_ss.index")
    write_index(folder / "db_ca.index", entries=entries, distinct=distinct, size=difference_size(length))
    with open(folder / "db.lookup", "w") as file:
        for first in range(0, entries, 100_000):
            rows = range(first, min(first + 100_000, entries))
            file.write("".join([f"{i}\tAF-A{i:09d}-F1-model_v4\t{i}\n" for i in rows]))
    write_index(folder / "tenth.index", entries=entries // 10, distinct=distinct, size=length + 2)
    for name, kind in (("db", 0), ("db_ss", 0), ("db_ca", 101)):
        (folder / f"{name}.dbtype").write_bytes(struct.pack("<I", kind))
    return folder / "db"


class PlainReader:
    """A straightforward reader: the index as tuples, entries sliced and decoded one at a time."""

    def __init__(self, path: Path) -> None:
        self.rows, self.maps = {}, {}
        for ending in ("", "_ss", "_ca"):
            data = path.with_name(path.name + ending)
            with open(f"{data}.index") as lines:
                self.rows[ending] = [tuple(int(field) for field in line.split("\t")) for line in lines]
            with data.open("rb") as file:
                self.maps[ending] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def cut(self, ending: str, row: int) -> bytes:
        """Return the bytes of an entry."""
        _, start, size = self.rows[ending][row]
        return self.maps[ending][start : start + size]

    def sequence(self, row: int, ending: str = "") -> str:
        """Return the letters of an entry without the terminator."""
        return self.cut(ending, row).decode("ascii").rstrip("\0").rstrip("\n").upper()

    def pair(self, row: int) -> tuple[str, str]:
        """Return the amino acids and 3Di letters of an entry."""
        return self.sequence(row), self.sequence(row, "_ss")

    def calpha(self, row: int) -> list[tuple[float, ...]]:
        """Return C-alpha coordinates in Angstrom."""
        raw = self.cut("_ca", row)
        length = (len(raw) - 8) // 6
        axes = []
        for axis in range(3):
            start, *steps = struct.unpack_from(f"<i{length - 1}h", raw, axis * 2 * (length + 1))
            axes.append([value / 1000 for value in itertools.accumulate(steps, initial=start)])
        return list(zip(*axes, strict=True))


def probe(what: str, path: Path, *, runs: int) -> dict[str, float]:
    """Return time and memory of opening or building in a separate process: the median run, after one that fills the disk cache."""
    found = []
    for run in range(runs + 1):
        if what in ("build", "names"):
            Path(f"{path}.{'index' if what == 'build' else 'lookup'}.protlig").unlink(missing_ok=True)
        command = [sys.executable, "-c", PROBE, what, str(path)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        if run:
            found.append(json.loads(done.stdout))
    return {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}


def rate(seconds: list[Seconds], reads: int) -> dict[str, int]:
    """Return entries per second of the median round, by CPU time and by wall time."""
    return {clock: round(reads / statistics.median(getattr(s, clock) for s in seconds)) for clock in ("cpu", "wall")}


def reading(path: Path, *, entries: int, rounds: int) -> dict[str, Any]:
    """Return the rates of both readers, which alternate."""
    db, plain = PairedFoldseekDB(path), PlainReader(path)
    source = np.random.default_rng(SEED + 1)
    orders = [source.integers(0, entries, READS) for _ in range(rounds + 1)]
    for row in orders[-1][:100].tolist():
        assert db.get_pair(row) == plain.pair(row), row
        assert np.allclose(db.calpha(row), plain.calpha(row), atol=1e-4), row

    def one_by_one(read: Callable[[int], object], reads: int) -> Callable[[int], None]:
        def run(number: int) -> None:
            for row in orders[number][:reads].tolist():
                read(row)

        return run

    def batched(read: Callable[[Any], object], reads: int) -> Callable[[int], None]:
        def run(number: int) -> None:
            for first in range(0, reads, BATCH):
                read(orders[number][first : min(first + BATCH, reads)])

        return run

    ours = {
        "sequences": (one_by_one(db.aa.get_sequence, READS), READS),
        "sequences_batched": (batched(db.aa.batch, READS), READS),
        "pairs": (one_by_one(db.get_pair, READS), READS),
        "pairs_batched": (batched(db.pair_batch, READS), READS),
        "calpha": (one_by_one(db.calpha, PLAIN_READS), PLAIN_READS),
        "calpha_batched": (batched(db.calpha_batch, PLAIN_READS), PLAIN_READS),
    }
    theirs = {
        "plain sequences": (one_by_one(plain.sequence, READS), READS),
        "plain pairs": (one_by_one(plain.pair, READS), READS),
        "plain calpha": (one_by_one(plain.calpha, PLAIN_READS // 20), PLAIN_READS // 20),
    }
    both = {**ours, **theirs}
    times = interleaved({name: run for name, (run, _) in both.items()}, rounds=rounds, device=torch.device("cpu"))
    return {name: rate(times[name], reads) for name, (_, reads) in both.items()}


def verdicts(opened: dict[str, float], built: dict[str, float], rates: dict[str, Any], entries: int) -> dict[str, Any]:
    """Return each target with the measured value."""
    reached = {
        "open_ms": opened["wall_ms"],
        "open_mb": opened["added_mb"],
        "build_cpu_seconds_for_5_million": round(built["cpu_seconds"] * 5_000_000 / entries, 3),
        **{name: rates[name]["cpu"] for name in ("sequences", "pairs", "calpha", "calpha_batched") if name in rates},
    }
    rises = {"sequences", "pairs", "calpha", "calpha_batched"}
    return {
        name: {"target": aim, "reached": reached[name], "met": (reached[name] >= aim) == (name in rises) or reached[name] == aim}
        for name, aim in TARGETS.items()
        if name in reached
    }


def main() -> None:
    """Generate the database, measure, print, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5_000_000, help="rows of each index (5000000)")
    parser.add_argument("--distinct", type=int, default=500_000, help="distinct entries of data that the rows share (500000)")
    parser.add_argument("--length", type=int, default=300, help="residues of each entry (300)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of reading, and runs of opening (3)")
    parser.add_argument("--no-reading", action="store_true", help="open and build only; the plain reader takes 0.6 GB per million entries")
    parser.add_argument("--folder", default=None, help="where to write the database (default: the system's temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="foldseek_reader_", dir=options.folder) as folder:
        distinct = min(options.distinct, options.entries)
        path = write_database(Path(folder), entries=options.entries, distinct=distinct, length=options.length)
        built = probe("build", path, runs=options.rounds)
        named = probe("names", path, runs=1)
        tenth = probe("build", path.with_name("tenth"), runs=options.rounds)
        len(PairedFoldseekDB(path)), PairedFoldseekDB(path).aa.calphas  # builds the binary indices that are missing
        opened = probe("open", path, runs=options.rounds)
        trained = probe("train", path, runs=options.rounds)
        rates = {} if options.no_reading else reading(path, entries=options.entries, rounds=options.rounds)
        size = {p.name: p.stat().st_size for p in sorted(Path(folder).iterdir()) if p.name.startswith("db")}
    report(
        {
            "benchmark": "foldseek_reader",
            "machine": describe_machine(torch.device("cpu")),
            "entries": options.entries,
            "distinct": distinct,
            "length": options.length,
            "bytes": size,
            "open, three sub-databases with binary indices": opened,
            "training data, from the path to the first batch, and batches of 256": trained,
            "build, one index": built,
            "build, a tenth of the rows": tenth,
            "build, the index of names, and lookups": named,
            "entries a second": rates,
            "targets": verdicts(opened, built, rates, options.entries),
        }
    )


if __name__ == "__main__":
    main()
