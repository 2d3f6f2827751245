"""From sequence to a PDB file: a causal model writes Kanzi's codes, the autoencoder that made them gives coordinates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from protlig_dd.causal.generate import CausalGenerator
from protlig_dd.cli.entry import main
from protlig_dd.sampling.requests import Sample
from protlig_dd.structures.structure_io import read_structure
from tests.support.folding_world import MODEL, STEPS, TRAIN, files_of, write_world

pytestmark = pytest.mark.xdist_group("folding")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, and a causal model of its tokens; all hardly trained."""
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    root = tmp_path_factory.mktemp("folding")
    write_world(root)
    training = [*files_of(root), *MODEL, *STEPS, *TRAIN]
    assert main(["train", "structure/kanzi_tiny", *training, "--out", str(root / "causal")]) == 0
    return root


def test_folding_writes_a_pdb_file_that_opens(folder: Path) -> None:
    out = folder / "one.pdb"
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu", "--tokenizer", str(folder / "kanzi")]
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
    assert "letters that are no amino acid, read as another one" in caplog.text and "J as X (1)" in caplog.text


def test_a_causal_run_fills_no_gaps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu"]
    assert main([*command, "--protein", "MKT__V"]) == 1
    assert "protein: found gaps `_` in the protein, which a causal run cannot fill" in capsys.readouterr().err


def test_several_samples_are_several_files(folder: Path) -> None:
    fasta = folder / "two.fasta"
    fasta.write_text(">a/1\nMKTAYIAKQ\n>b\nGGSWACDEFG\n")
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu", "--tokenizer", str(folder / "kanzi")]
    assert main([*command, "--protein", str(fasta), "--num", "1", "--out", str(folder / "many.pdb")]) == 0
    found = {path.name: read_structure(path).chains[0].sequence for path in folder.glob("many_*.pdb")}
    assert found == {"many_a_1_0.pdb": "MKTAYIAKQ", "many_b_1.pdb": "GGSWACDEFG"}


def test_coordinates_need_the_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(folder / "causal"), "--task", "folding", "--device", "cpu", "--protein", "MKTAYIAKQ"]
    assert main([*command, "--out", str(folder / "none.pdb")]) == 1
    assert "needs --tokenizer" in capsys.readouterr().err and not (folder / "none.csv").exists()


def test_predicted_coordinates_stand_beside_the_truth_and_the_floor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(folder / "causal"), "--split", "train", "--device", "cpu", "--coordinates", str(folder / "truth")]
    assert main([*command, "--tokenizer", str(folder / "kanzi")]) == 0
    told = capsys.readouterr().out
    assert "Coordinates, train split" in told and "RMSD of the true tokens, decoded (A)" in told and "another chain's prediction" in told
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


def test_the_runs_own_settings_are_taken_unless_told_otherwise(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder / "causal", own)
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["evaluation"] |= {"coordinates": str(folder / "truth"), "tokenizer": str(folder / "kanzi")}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["evaluate", str(own), "--device", "cpu"]
    assert main([*command, "--split", "train", "--num", "2"]) == 0
    assert "Coordinates, train split" in capsys.readouterr().out and (own / "traces.json").is_file()
    (own / "evaluation.json").unlink()
    assert main([*command, "--split", "train", "--coordinates", str(tmp_path / "none"), "--tokenizer", "x"]) == 1
    assert "--tokenizer 'x': " in capsys.readouterr().err, "what is told comes before what is set"
    assert main([*command, "--split", "test"]) == 1
    assert "--split test: this run has no test data to compare" in capsys.readouterr().err
    assert not (own / "evaluation.json").exists(), "nothing is evaluated before that is known"


def test_structures_compared_in_angstrom_are_those_that_were_drawn_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluation draws to the given and to a learned length; coordinates are decoded from the first, not from a third round of samples."""
    drawn = []

    def counted(self: CausalGenerator, *arguments: Any, **how: Any) -> Iterator[Sample]:
        drawn.append(self.decoding.length)
        return generate(self, *arguments, **how)

    generate = CausalGenerator.generate
    monkeypatch.setattr(CausalGenerator, "generate", counted)
    names = ["--coordinates", str(folder / "truth"), "--tokenizer", str(folder / "kanzi")]
    assert main(["evaluate", str(folder / "causal"), "--split", "train", "--num", "2", "--device", "cpu", *names]) == 0
    assert "Coordinates, train split" in capsys.readouterr().out and drawn == ["given", "learned"]
