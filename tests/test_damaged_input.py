"""Damaged files other than tables and runs (structures, mutants, configs, lists, vocabularies, torch files) are read, or refused in words."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from protlig_dd.config_files import read_config
from protlig_dd.data.readers.index_lists import read_index_lists
from protlig_dd.data.readers.mutants import read_mutants
from protlig_dd.errors import ConfigError, MissingDependencyError, ProtligError
from protlig_dd.runs.experiment import experiment_from
from protlig_dd.runs.open import open_run
from protlig_dd.structures.structure_io import read_structure
from protlig_dd.tokens.ligand import load_vocabulary
from tests.support.chains import pdb_text
from tests.support.mmcif import CIF_HEAD

ROOT = Path(__file__).resolve().parent.parent
LETTERS = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
ODD = [
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b'"',
    b",",
    b">",
    b"{",
    b"[" * 50,
    b"1e999",
    b"9" * 400,
    b"-1",
    b"nan",
    b"\t",
    b"=",
    b"null",
    b"../",
]
"""Pieces that readers stumble over: bytes of other encodings, quotes, brackets, and numbers that are none."""


def cif_text() -> str:
    atoms = [
        f"ATOM {i} {a[0]} {a} . GLY A 1 {i // 4 + 1} ? {i}.0 1.0 2.0 1.0 50.0 {i // 4 + 1} A 1"
        for i, a in enumerate(("N", "CA", "C", "O") * 3)
    ]
    return f"{CIF_HEAD}\n" + "\n".join(atoms) + "\n#\n"


def seeds() -> dict[str, bytes]:
    """A small valid file of each kind, by its name."""
    texts = {
        "a.pdb": pdb_text([("MET", "1"), ("LYS", "2"), ("THR", "3")]),
        "a.cif": cif_text(),
        "mutants.csv": "mutant,DMS_score\nM1A,0.5\nK2R:T3S,-1.25\n",
        "config.yaml": "extends: dplm/tiny\nname: own\ntrain: {steps: 3, optim: {lr: 1.0e-3}}\ndata: {path: x.fasta}\n",
        "lists.json": '{"train": [0, 1, 5], "test": [2, 3]}',
        "vocabulary.json": '{"kind": "ligand vocabulary", "tokens": ["C", "O", "[NH3+]", "(", ")"]}',
    }
    return {name: text.encode() for name, text in texts.items()}


READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("a.pdb", "a.cif"), read_structure),
    "mutants.csv": lambda path: read_mutants(path, LETTERS),
    "config.yaml": lambda path: experiment_from(read_config(path)),
    "lists.json": read_index_lists,
    "vocabulary.json": load_vocabulary,
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A file with one to three changes: bytes flipped, cut out, repeated, cut off, or an odd piece put in."""
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(content) + 1)
        end = min(len(content), place + draw.randint(1, 40))
        change = draw.randrange(5)
        if change == 0 and place < len(content):
            content = content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        elif change == 1:
            content = content[:place] + content[end:]
        elif change == 2:
            content = content[:end] + content[place:]
        elif change == 3:
            content = content[:place]
        else:
            content = content[:place] + draw.choice(ODD) + content[place:]
    return content


def outcomes(name: str, content: bytes, folder: Path, numbers: range) -> Counter[str]:
    """How many damaged files were read and refused; fails with the first that does neither."""
    found: Counter[str] = Counter()
    for number in numbers:
        path = folder / name
        path.write_bytes(damaged(content, random.Random(f"{name} {number}")))
        try:
            READERS[name](path)
            found["read"] += 1
        except MissingDependencyError:
            raise
        except (ProtligError, OSError) as error:
            lines = str(error).splitlines()
            assert len(lines) == 1 or isinstance(error, ConfigError), (
                name,
                number,
                str(error),
            )  # settings are refused all at once, a line each
            assert max(map(len, lines)) < 1000, (name, number, str(error))
            found["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{name}, damage {number}: {path.read_bytes()[:300]!r}") from error
    return found


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("numbers", [range(25), pytest.param(range(25, 1025), marks=pytest.mark.slow)], ids=["some", "many"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str, numbers: range) -> None:
    if READERS[name] is read_structure:
        pytest.importorskip("gemmi", reason="structure files need protlig_dd[structure]")
    content = seeds()[name]
    (tmp_path / name).write_bytes(content)
    READERS[name](tmp_path / name)  # the undamaged file is read
    found = outcomes(name, content, tmp_path, numbers)
    assert found["refused"] > 0 and found["read"] > 0, found


@pytest.mark.parametrize("numbers", [range(8), pytest.param(range(8, 258), marks=pytest.mark.slow)], ids=["some", "many"])
def test_a_damaged_torch_file_is_refused_in_one_line(tmp_path: Path, numbers: range) -> None:
    torch.save({"model": {"encoder.sentence_encoder.embed_tokens.weight": torch.zeros(33, 4)}}, tmp_path / "seed.pt")
    READERS["a.pt"] = lambda path: open_run(path, device="cpu")
    try:
        assert outcomes("a.pt", (tmp_path / "seed.pt").read_bytes(), tmp_path, numbers)["read"] == 0
    finally:
        del READERS["a.pt"]
