"""The structure files of a folder, the chains that createdb uses of each, and the database entries made of them.

All that reads folders of structures goes through `structure_files` and `read_chains`: building databases, tokenizing, and training on
C-alpha traces. Chains and files that are left out are returned with the reason (`skipped.py` counts and lists them).
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from protlig_dd.data.foldseek.writer import Entry
from protlig_dd.data.skipped import ALIKE_RESIDUES, LOST_RESIDUES, UNREADABLE, Skipped
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.structures.foldseek_chains import FoldseekChain, read_foldseek_chains, structure_stem, threedi_of

_CA_ONLY = "found C-alpha atoms only; 3Di letters need N and C as well (Foldseek would rebuild them): add them with another program"
_FILES_WORTH_A_PROCESS = 64  # a process takes half a second to start, a file some 10 ms to read
_CHUNK = 8  # files that a worker reads at a time


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """How a chain becomes tokens.

    Attributes:
        tokens: returns the token string of a chain; it must be importable by name if several processes are used.
        needs_backbone: whether chains with C-alpha atoms only are left out.
    """

    tokens: Callable[[FoldseekChain], str]
    needs_backbone: bool


THREEDI = Tokenizer(tokens=threedi_of, needs_backbone=True)


@dataclass(frozen=True, kw_only=True)
class FileChains:
    """The chains of one structure file, as createdb reads them.

    Attributes:
        path: the file.
        title: its title on one line; often empty.
        num_models: models in the file.
        chains: those that are used, of all models, in the order of the file.
        skipped: the file, chains and residues that are left out.
    """

    path: Path
    title: str = ""
    num_models: int = 0
    chains: tuple[FoldseekChain, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileEntries:
    """The entries of one structure file, and what was left out of it."""

    entries: tuple[Entry, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become entries.

    Attributes:
        tokenizer: makes `Entry.structure`.
        with_ca: whether entries have C-alpha coordinates.
        mask_bfactor_threshold: residues whose C-alpha has a lower B-factor get lower-case letters; 0 masks none.
    """

    tokenizer: Tokenizer = THREEDI
    with_ca: bool = True
    mask_bfactor_threshold: float = 0.0


def structure_files(source: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders in createdb's order, by the bytes of their paths; or the one file given.

    Files are not selected by suffix; hidden ones (a leading dot) are left out.

    Raises:
        ConfigError: if there is no such file or folder.
    """
    if source.is_file():
        yield source
        return
    if not source.is_dir():
        raise ConfigError(f"{source}: found no such file or folder, expected PDB or mmCIF files; check the path")
    with os.scandir(source) as listing:
        found = [(os.fsencode(e.name + "/" * e.is_dir()), e.is_dir()) for e in listing if not e.name.startswith(".")]
    for name, is_folder in sorted(found):
        path = source / os.fsdecode(name.rstrip(b"/"))
        if is_folder:
            yield from structure_files(path)
        else:
            yield path


def read_chains(path: Path, *, needs_backbone: bool = False) -> FileChains:
    """Return the chains of one structure file that createdb uses, and what is left out; an unreadable file is left out as a whole.

    Args:
        path: a PDB or mmCIF file, with any suffix.
        needs_backbone: whether chains with C-alpha atoms only are left out too.
    """
    try:
        found = read_foldseek_chains(path)
    except FormatError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return FileChains(path=path, skipped=(Skipped(what=str(path), kind=UNREADABLE, reason=reason),))
    chains, skipped = [], []
    for chain in found.chains:
        what = f"{path} chain {chain.name or 'blank'}" + (f" model {chain.model}" if found.num_models > 1 else "")
        problem = chain.problem
        if problem is None and needs_backbone and not chain.has_backbone:
            problem = "C-alpha only", _CA_ONLY
        if problem is not None:
            skipped.append(Skipped(what=what, kind=problem[0], reason=problem[1]))
            continue
        if chain.num_without_ca:
            reason = f"the chain is there without {chain.num_without_ca} residues that have no C-alpha"
            skipped.append(Skipped(what=what, kind=LOST_RESIDUES, reason=reason, count=chain.num_without_ca))
        if chain.num_alike:
            reason = f"the chain is there without {chain.num_alike} C-alphas whose residue has the number of another, as in createdb; number them apart"
            skipped.append(Skipped(what=what, kind=ALIKE_RESIDUES, reason=reason, count=chain.num_alike))
        chains.append(chain)
    return FileChains(path=path, title=found.title, num_models=found.num_models, chains=tuple(chains), skipped=tuple(skipped))


def read_entries(path: Path, reading: Reading) -> FileEntries:
    """Return the entries of one structure file, and what was left out of it."""
    found = read_chains(path, needs_backbone=reading.tokenizer.needs_backbone)
    return FileEntries(entries=tuple(_entry(chain, found, reading) for chain in found.chains), skipped=found.skipped)


def _entry(chain: FoldseekChain, file: FileChains, reading: Reading) -> Entry:
    sequence, structure = chain.sequence, reading.tokenizer.tokens(chain)
    if reading.mask_bfactor_threshold:
        low = (chain.b_factors < reading.mask_bfactor_threshold).tolist()
        sequence, structure = (
            "".join(c.lower() if masked else c for c, masked in zip(text, low, strict=True)) for text in (sequence, structure)
        )
    return Entry(
        name=" ".join(chain.entry_name.split()),
        sequence=sequence,
        structure=structure,
        ca_angstrom=chain.ca if reading.with_ca else None,
        title=file.title,
        source=" ".join(structure_stem(Path(structure_stem(file.path))).split()),
        model=chain.model,
        several_models=file.num_models > 1,
    )


def choose_workers(asked: int, num_files: int) -> int:
    """Return the number of reading processes: `asked`, or for 0 one a core if there are enough files to gain from it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or min(cores, num_files // _FILES_WORTH_A_PROCESS)


def _read_several(paths: list[Path], reading: Reading) -> list[FileEntries]:
    return [read_entries(path, reading) for path in paths]


def read_all(paths: Iterable[Path], reading: Reading, *, workers: int) -> Iterator[FileEntries]:
    """Yield the entries of each file in the order of the files, read by several processes a bounded number of files ahead.

    Args:
        paths: the files.
        reading: how they become entries.
        workers: number of processes; 0 or 1 reads in this one.

    Raises:
        FormatError: if a process ends early, for example for lack of memory.
    """
    if workers <= 1:
        yield from (read_entries(path, reading) for path in paths)
        return
    paths = iter(paths)
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    waiting: deque[Future[list[FileEntries]]] = deque()
    try:
        while True:
            while len(waiting) < 4 * workers and (chunk := list(islice(paths, _CHUNK))):
                waiting.append(pool.submit(_read_several, chunk, reading))
            if not waiting:
                break
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise FormatError(
            "a process that reads structures ended before its work; use fewer workers if memory is short, and in a script of "
            "your own call this from under: if __name__ == '__main__'"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
