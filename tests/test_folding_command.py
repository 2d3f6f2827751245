"""From sequence to a PDB file: a causal model writes Kanzi's codes, the autoencoder that made them gives coordinates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.cli import main
from protlig_dd.data.foldseek_writer import Entry, write_database
from protlig_dd.geometry.structure_io import Chain, read_structure, write_pdb

pytestmark = pytest.mark.xdist_group("folding")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TRAIN = ["--device", "cpu", "train.log_every=1", "train.tracking.tensorboard=false", "train.tracking.wandb=off"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Helices as PDB files, an autoencoder of them, their tokens, and a causal model of the tokens; all hardly trained."""
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    root = tmp_path_factory.mktemp("folding")
    (root / "pdbs").mkdir()
    draws = np.random.default_rng(0)
    for i in range(6):
        n = 9 + i
        t = np.arange(n)
        points = np.stack([2.3 * np.cos(1.745 * t), 2.3 * np.sin(1.745 * t), 1.5 * t], axis=1) + 0.1 * draws.normal(
            size=(n, 3)
        )
        sequence = "".join(draws.choice(list(LETTERS), n))
        write_pdb(Chain.of_coordinates(sequence, points[:, None].astype(np.float32)), root / "pdbs" / f"h{i}.pdb")
    small = [
        "model.encoder_size=16",
        "model.encoder_heads=2",
        "model.pair_size=8",
        "model.decoder_size=16",
        "model.decoder_heads=2",
    ]
    data = [
        f"data.path={root / 'pdbs'}",
        "data.min_length=4",
        "data.copies=2",
        "train.batch_size=4",
        "sampling.num_steps=4",
    ]
    steps = ["train.steps=1", "train.checkpoint_every=1", "train.validate_every=0"]
    assert main(["train", "kanzi/tiny", *data, *small, *steps, *TRAIN, "--out", str(root / "kanzi")]) == 0
    tokens = ["--track", "kanzi", "--tokenizer", str(root / "kanzi"), "--device", "cpu", "--out", str(root / "t.fasta")]
    assert main(["tokenize", str(root / "pdbs"), *tokens]) == 0
    model = [
        "model.hidden_size=16",
        "model.num_heads=2",
        "model.num_kv_heads=1",
        "model.num_blocks=1",
        "model.inner_size=32",
    ]
    files = [
        f"data.path={root / 't.fasta'}",
        f"data.structure_path={root / 't_kanzi.fasta'}",
        "data.leakage=false",
        "train.batch_size=4",
    ]
    assert main(["train", "structure/kanzi_tiny", *files, *model, *steps, *TRAIN, "--out", str(root / "causal")]) == 0
    return root


def test_folding_writes_a_pdb_file_that_opens(folder: Path) -> None:
    out = folder / "one.pdb"
    command = [
        "sample",
        str(folder / "causal"),
        "--task",
        "folding",
        "--device",
        "cpu",
        "--tokenizer",
        str(folder / "kanzi"),
    ]
    assert main([*command, "--protein", "MKTAYIAKQRHEAV", "--num", "1", "--out", str(out)]) == 0
    (chain,) = read_structure(out).chains
    assert chain.sequence == "MKTAYIAKQRHEAV" and np.isfinite(chain.ca).all()
    assert (folder / "one.csv").is_file() and json.loads((folder / "one.csv.json").read_text())["seed"] == 0
    first = chain.ca.copy()
    assert main([*command, "--protein", "MKTAYIAKQRHEAV", "--num", "1", "--out", str(out)]) == 0
    np.testing.assert_array_equal(read_structure(out).chains[0].ca, first)


def test_residues_are_those_of_the_protein_as_it_was_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lower case and a stop sign are no other protein, and what is read as X is told."""
    out, run = folder / "cases.pdb", ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu"]
    command = [*run, "--tokenizer", str(folder / "kanzi"), "--protein", "mktaJyiakq*", "--out", str(out)]
    with caplog.at_level("WARNING"):
        assert main(command) == 0
    (chain,) = read_structure(out).chains
    assert chain.sequence == "MKTAXYIAKQ"
    assert "letters that are no amino acid are read as another one" in caplog.text and "J as X (1)" in caplog.text


def test_a_causal_run_fills_no_gaps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu"]
    assert main([*command, "--protein", "MKT__V"]) == 1
    assert "protein: found gaps `_` in the protein, which a causal run cannot fill" in capsys.readouterr().err


def test_several_samples_are_several_files(folder: Path) -> None:
    fasta = folder / "two.fasta"
    fasta.write_text(">a/1\nMKTAYIAKQ\n>b\nGGSWACDEFG\n")
    command = [
        "sample",
        str(folder / "causal"),
        "--task",
        "folding",
        "--device",
        "cpu",
        "--tokenizer",
        str(folder / "kanzi"),
    ]
    assert main([*command, "--protein", str(fasta), "--num", "1", "--out", str(folder / "many.pdb")]) == 0
    found = {path.name: read_structure(path).chains[0].sequence for path in folder.glob("many_*.pdb")}
    assert found == {"many_a_1_0.pdb": "MKTAYIAKQ", "many_b_1.pdb": "GGSWACDEFG"}


def test_coordinates_need_the_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu", "--protein", "MKTAYIAKQ"]
    assert main([*command, "--out", str(folder / "none.pdb")]) == 1
    assert "needs --tokenizer" in capsys.readouterr().err and not (folder / "none.csv").exists()


def test_predicted_coordinates_stand_beside_the_truth_and_the_floor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mini3di", reason="mini3di is not installed (extra structure)")
    names = [line[1:].split()[0] for line in (folder / "t.fasta").read_text().splitlines() if line.startswith(">")]
    texts = [line for line in (folder / "t.fasta").read_text().splitlines() if not line.startswith(">")]
    chains = [read_structure(folder / "pdbs" / f"{name}.pdb").chains[0].ca for name in names]
    entries = [
        Entry(name=name, sequence=text, structure="D" * len(text), ca_angstrom=np.asarray(ca, dtype=np.float64))
        for name, text, ca in zip(names, texts, chains, strict=True)
    ]
    write_database(folder / "truth", entries)
    command = [
        "evaluate",
        str(folder / "causal"),
        "--split",
        "train",
        "--device",
        "cpu",
        "--coordinates",
        str(folder / "truth"),
    ]
    assert main([*command, "--tokenizer", str(folder / "kanzi")]) == 0
    told = capsys.readouterr().out
    assert (
        "Coordinates, train split" in told
        and "RMSD of the true tokens, decoded (A)" in told
        and "another chain's prediction" in told
    )
    assert main(["report", str(folder / "causal")]) == 0
    assert "<h2>Structures</h2>" in (folder / "causal" / "report.html").read_text()
    assert main(command) == 1 and "expected both" in capsys.readouterr().err
    for options, words in (
        (["--coordinates", str(folder / "none"), "--tokenizer", str(folder / "kanzi")], "found no such database"),
        (["--coordinates", str(folder / "truth"), "--tokenizer", str(folder / "causal")], "found no autoencoder's run"),
    ):
        assert main([*command[:-2], *options]) == 1
        told = capsys.readouterr()
        assert words in told.err and not told.out, "told before the evaluation, not behind it"
