"""Token caches of Foldseek databases: 3Di and Kanzi, whole and by jobs side by side, then trained on; and what cannot be cached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from protlig_dd.cli.entry import main
from protlig_dd.data.foldseek.writer import Entry, write_database
from protlig_dd.data.shards import open_shards
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.kanzi.model import KanziSettings
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.runs.token_cache import CacheSettings, cache_tokens
from protlig_dd.tokens.settings import StructureTrack

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def entries(num: int = 9, *, with_ca: bool = True) -> list[Entry]:
    draws = np.random.default_rng(0)
    texts = ["".join(draws.choice(list(LETTERS), 4 + 2 * i)) for i in range(num)]
    steps = [draws.normal(size=(len(t), 3)) * 2 for t in texts]
    return [
        Entry(name=f"c{i}", sequence=t, structure=t[::-1], ca_angstrom=np.cumsum(s, axis=0) if with_ca else None)
        for i, (t, s) in enumerate(zip(texts, steps, strict=True))
    ]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    write_database(tmp_path / "db", entries())
    return tmp_path / "db"


def structures(folder: Path, alphabet: str) -> dict[str, str]:
    table = open_shards(folder)
    track = StructureTrack(alphabet=alphabet, max_length=1026).build("structure")  # type: ignore[arg-type]
    assert table.names is not None
    return {name: track.decode(table.example(i)["structure"].tolist()) for i, name in enumerate(table.names)}


def small_tokenizer(seed: int = 0) -> KanziTokenizer:
    torch.manual_seed(seed)
    shape = KanziSettings(
        encoder_size=16, encoder_heads=2, encoder_blocks=1, pair_size=8, decoder_size=16, decoder_heads=2, decoder_blocks=1
    )
    return KanziTokenizer(shape.build("bucketed").eval())


def test_a_cache_holds_every_entry_and_trains(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Arrow shards need pyarrow (extra data)")
    assert main(["tokenize", str(database), "--track", "3di", "--out", str(tmp_path / "cache")]) == 0
    assert structures(tmp_path / "cache", "3di") == {e.name: e.structure for e in entries()}
    command = ["train", "dplm2/tiny", "data={kind: shards}", f"data.path={tmp_path / 'cache'}", "--out", str(tmp_path / "run")]
    small = ["model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "tracks.protein.max_length=1026"]
    quick = ["--device", "cpu", "train.steps=2", "train.tokens_per_batch=8400", "tracks.structure.max_length=1026"]
    assert main([*command, *small, *quick, "data.split={kind: random, validation_fraction: 0.3}", "train.tracking.wandb=off"]) == 0


def test_jobs_side_by_side_make_one_cache(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    for i in range(3):
        cache_tokens(database, out, CacheSettings(shard=(i, 3)))
        if i < 2:
            with pytest.raises(FormatError, match=f"{2 - i} of 3 parts are missing"):
                open_shards(out)
    assert structures(out, "3di") == {e.name: e.structure for e in entries()}
    cache_tokens(database, out, CacheSettings(shard=(0, 2)))
    with pytest.raises(FormatError, match="those of one job"):
        open_shards(out)


def test_jobs_before_and_after_their_database_was_replaced_make_no_cache(database: Path, tmp_path: Path) -> None:
    cache_tokens(database, tmp_path / "cache", CacheSettings(shard=(0, 2)))
    changed = [replace(e, sequence=e.sequence[:-1] + "W") for e in entries()]
    for path in tmp_path.glob("db*"):
        path.unlink()
    write_database(database, changed)
    cache_tokens(database, tmp_path / "cache", CacheSettings(shard=(1, 2)))
    with pytest.raises(
        FormatError, match="part_1_of_2: was made with database '.*', part_0_of_2 with '.*': the parts do not belong together"
    ):
        open_shards(tmp_path / "cache")


def test_jobs_with_other_tokenizers_make_no_cache(database: Path, tmp_path: Path) -> None:
    for i, seed in enumerate((0, 1)):
        cache_tokens(database, tmp_path / "cache", CacheSettings(alphabet="kanzi", shard=(i, 2)), small_tokenizer(seed))
    with pytest.raises(FormatError, match="part_1_of_2: was made with tokenizer '.*', part_0_of_2 with "):
        open_shards(tmp_path / "cache")


@pytest.mark.parametrize("file", ["../part_0_of_2/shard-00000.arrow", "/etc/passwd", 3])
def test_a_manifest_names_no_file_of_another_folder(database: Path, tmp_path: Path, file: Any) -> None:
    cache_tokens(database, tmp_path / "cache", CacheSettings())
    path = tmp_path / "cache" / "shards.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["file"] = file
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"shards.json: damaged: expected tracks, labels, and the files of this folder"):
        open_shards(tmp_path / "cache")


def test_kanzi_tokens_are_the_tokenizers(database: Path, tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    cache_tokens(database, tmp_path / "cache", CacheSettings(alphabet="kanzi"), tokenizer)
    found = structures(tmp_path / "cache", "kanzi")
    for entry in entries():
        assert entry.ca_angstrom is not None
        (expected,) = tokenizer.encode([np.trunc(entry.ca_angstrom * 1000).astype(np.float32) / np.float32(1000)])
        assert [int(code) for code in found[entry.name].split(",")] == expected, entry.name


def test_long_proteins_are_left_out_and_counted(database: Path, tmp_path: Path) -> None:
    report = cache_tokens(database, tmp_path / "cache", CacheSettings(max_length=10))
    assert len(structures(tmp_path / "cache", "3di")) == 4
    assert any("5 dropped" in line for line in report.lines())


def test_a_cache_without_an_entry_is_an_error_and_blocks_nothing(database: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"found no entry to keep among 9.*9 dropped: protein longer than 3 tokens"):
        cache_tokens(database, tmp_path / "cache", CacheSettings(max_length=1))
    assert cache_tokens(database, tmp_path / "cache", CacheSettings()).kept == 9
    parts = [cache_tokens(database, tmp_path / "parts", CacheSettings(shard=(i, 12))) for i in range(12)]
    assert sum(part.kept for part in parts) == 9 and len(open_shards(tmp_path / "parts")) == 9


def test_what_cannot_be_cached_is_said(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_database(tmp_path / "flat", entries(with_ca=False))
    with pytest.raises(ConfigError, match="no C-alphas"):
        cache_tokens(tmp_path / "flat", tmp_path / "cache", CacheSettings(alphabet="kanzi"), small_tokenizer())
    for ending in ("_ss", "_ss.index", "_ss.dbtype"):
        database.with_name(database.name + ending).unlink()
    with pytest.raises(ConfigError, match="no 3Di letters"):
        cache_tokens(database, tmp_path / "cache", CacheSettings())
    for options, words in (
        (["--track", "kanzi", "--out", "x"], "--tokenizer"),
        (["--out", "x.fasta"], "a folder of shards"),
        (["--out", "x", "--max-length", "-5"], "--max-length -5: expected 1 or more residues"),
        (["--track", "kanji", "--out", "x"], "did you mean 'kanzi'"),
    ):
        assert main(["tokenize", str(database), *options]) == 1
        assert words in capsys.readouterr().err
