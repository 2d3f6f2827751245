"""DPLM and DPLM-2 through the command line: train, the six tasks, score, embed, export; and one clear line for what cannot be done."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protlig_dd.cli.entry import main
from protlig_dd.errors import ConfigError
from protlig_dd.models.encoder import Encoder
from protlig_dd.runs.embed import numbered
from protlig_dd.runs.open import open_run
from protlig_dd.runs.tasks import fixed_template
from protlig_dd.tokens.tracks import pack
from tests.support.encoders import LETTERS, QUICK, SHIFTED, fasta, sequences

pytestmark = pytest.mark.xdist_group("dplm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dplm")
    texts = sequences(60)
    proteins, codes = fasta(root / "s.fasta", texts), fasta(root / "t.fasta", [t.translate(SHIFTED) for t in texts])
    assert main(["train", "dplm/tiny", f"data.path={proteins}", *QUICK, "--out", str(root / "one")]) == 0
    paired = [f"data.path={proteins}", f"data.structure_path={codes}", *QUICK, "--out", str(root / "two")]
    assert main(["train", "dplm2/tiny", *paired]) == 0
    return root


def sampled(folder: Path, *options: str, model: str = "one") -> list[dict[str, str]]:
    out = folder / f"out{len(list(folder.glob('out*')))}.csv"
    given = ["sample", "--model", str(folder / model), "--device", "cpu", "--steps", "4", "--out", str(out)]
    assert main([*given, *options]) == 0
    with out.open() as file:
        return list(csv.DictReader(file))


def test_sequences_of_several_lengths(folder: Path) -> None:
    rows = sampled(folder, "--task", "sequence", "--length", "9", "14", "--num", "2")
    assert sorted(len(row["protein"]) for row in rows) == [9, 9, 14, 14]
    assert all(set(row["protein"]) <= set(LETTERS) for row in rows)
    again = sampled(folder, "--task", "sequence", "--length", "9", "14", "--num", "2", "--batch-size", "1")
    assert again == rows


def test_inpainting_keeps_what_is_fixed(folder: Path) -> None:
    for row in sampled(folder, "--task", "inpainting", "--length", "12", "--fix", "1-4=ALVE", "10=W", "--num", "3"):
        assert row["protein"][:4] == "ALVE" and row["protein"][9] == "W" and len(row["protein"]) == 12
    for row in sampled(folder, "--task", "inpainting", "--infill", "MK____LV", "--num", "2"):
        assert row["protein"].startswith("MK") and row["protein"].endswith("LV")


ATOM = "ATOM  {:>5}  CA  {} {}{:>4}{}   {:8.3f}{:8.3f}{:8.3f}  1.00 50.00           C\n"


def chain(name: str, residues: list[tuple[str, int, str]], start: int) -> str:
    return "".join(
        ATOM.format(start + i, kind, name, number, insertion, 3.8 * (start + i), 0.0, 0.0)
        for i, (kind, number, insertion) in enumerate(residues)
    )


def test_a_motif_of_two_chains_is_scaffolded(folder: Path) -> None:
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    first = chain("A", [("ALA", 5, " "), ("TRP", 6, " "), ("TRP", 6, "A"), ("MSE", 7, " ")], 1)
    second = chain("B", [("HIS", 30, " "), ("CYS", 31, " ")], 9)
    path = folder / "motif.pdb"
    path.write_text(f"{first}TER\n{second}TER\nEND\n")
    motif = ("--task", "scaffold", "--motif", "2-4,A5-7,3,B30-31,1-2", "--protein", str(path), "--num", "4")
    rows = sampled(folder, *motif)
    assert len({row["name"] for row in rows}) == 4
    for row in rows:
        at = row["protein"].index("AWWM")
        assert 2 <= at <= 4 and row["protein"][at + 7 : at + 9] == "HC" and 12 <= len(row["protein"]) <= 15
        assert row["motif"] == f"{at + 1}-{at + 4} {at + 8}-{at + 9}"


def test_the_three_tasks_of_two_tracks(folder: Path) -> None:
    for row in sampled(folder, "--task", "co_generation", "--length", "8", "--num", "2", model="two"):
        assert len(row["protein"]) == len(row["structure"]) == 8
    given = fasta(folder / "given.fasta", ["MKTAYIAK", "GGSW"])
    folded = sampled(folder, "--task", "folding", "--protein", str(given), "--num", "2", model="two")
    assert sorted({(row["protein"], len(row["structure"])) for row in folded}) == [("GGSW", 4), ("MKTAYIAK", 8)]
    for row in sampled(folder, "--task", "inverse_folding", "--structure", "DVLPQ", "--num", "2", model="two"):
        assert row["structure"] == "DVLPQ" and len(row["protein"]) == 5


def test_structure_tokens_stand_beside_the_proteins_in_fasta(folder: Path) -> None:
    out = folder / "pair.fasta"
    given = ["sample", "--model", str(folder / "two"), "--device", "cpu", "--steps", "3", "--out", str(out)]
    assert main([*given, "--task", "co_generation", "--length", "6", "--num", "2"]) == 0
    assert len(out.read_text().splitlines()) == len((folder / "pair.structure.fasta").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "folding", "--protein", "MKT"], "needs a model with the tracks protein and structure"),
        (["--task", "inpainting", "--length", "5", "--fix", "4-6=AAA"], "expected as many letters as residues"),
        (["--task", "inpainting", "--length", "5"], "--fix 1-4=ALVE"),
        (["--task", "scaffold"], "--motif"),
        (["--task", "sequence", "--length", "5000"], "expected 1 to 256"),
        (["--task", "sequence", "--length", "5", "--strategy", "annealing@x"], "annealing@2.0:0.1"),
        (["--task", "sequence", "--length", "5", "--strategy", "none"], "strategy"),
        (["--task", "sequence", "--length", "5", "--out", "x.pdb"], "only Kanzi's codes hold coordinates"),
        (["--task", "sequence", "--length", "5", "--emits", "dplm"], "tracks.protein.emits"),
    ],
)
def test_what_cannot_be_sampled_is_one_line(folder: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--model", str(folder / "one"), "--device", "cpu", "--num", "1", *options]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert words in told[-1] and "Traceback" not in "".join(told)


def test_fixed_templates() -> None:
    assert fixed_template(6, ["1-2=MK", "6=v"]) == "MK___V"
    for bad in (["1-2=MKT"], ["0=A"], ["1=A", "1=C"], ["x"], ["1-3=AAA"]):
        with pytest.raises(ConfigError):
            fixed_template(3, bad)


def scored(folder: Path, *options: str) -> list[dict[str, str]]:
    out = folder / f"score{len(list(folder.glob('score*')))}.csv"
    assert main(["score", "--model", str(folder / "one"), "--device", "cpu", "--out", str(out), *options]) == 0
    with out.open() as file:
        return list(csv.DictReader(file))


def test_scores_of_sequences(folder: Path) -> None:
    (bound,) = scored(folder, "--protein", "MKTAYIAK")
    (chain_rule,) = scored(folder, "--protein", "MKTAYIAK", "--method", "chain", "--draws", "40")
    (pll,) = scored(folder, "--protein", "MKTAYIAK", "--method", "pll")
    assert float(bound["low"]) <= float(bound["nats"]) <= float(bound["high"])
    assert float(chain_rule["nats"]) == pytest.approx(float(bound["nats"]), abs=0.4)
    assert 8 * 2 < float(pll["nats"]) < 8 * 4 and "low" not in pll


def test_scores_of_mutants_come_with_spearman_and_its_null(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folder / "assay.csv"
    table.write_text("mutant,DMS_score\nM1A,0.1\nK2R,0.5\nT3S:A4G,0.2\nY5F,0.9\nI6V,0.3\n")
    for method in ("masked-marginal", "wt-marginal"):
        rows = scored(folder, "--protein", "MKTAYIAK", "--mutants", str(table), "--method", method)
        assert [row["name"] for row in rows] == ["M1A", "K2R", "T3S:A4G", "Y5F", "I6V"]
        assert all(abs(float(row["effect"])) < 20 for row in rows)
    told = capsys.readouterr().out
    assert "Spearman" in told and "null" in told
    table.write_text("mutant,DMS_score\nM1A,nan\n")
    assert main(["score", "--model", str(folder / "one"), "--protein", "MKT", "--mutants", str(table)]) == 0
    assert "correlation: none (0 pairs)" in capsys.readouterr().out


@torch.no_grad()
@pytest.mark.parametrize("command", ["score", "embed", "sample"])
def test_replaced_letters_are_told_by_every_command(folder: Path, command: str, caplog: pytest.LogCaptureFixture) -> None:
    given = fasta(folder / "odd.fasta", ["MKTAYIAK", "MKTAYJAK", "ACGTTGCAAACG"])
    out = folder / ("odd.safetensors" if command == "embed" else f"odd_{command}.csv")
    options = ["--task", "folding", "--num", "1", "--steps", "2"] if command == "sample" else []
    model = folder / ("two" if command == "sample" else "one")
    assert main([command, "--model", str(model), "--protein", str(given), *options, "--device", "cpu", "--out", str(out)]) == 0
    assert "read as another one, as tracks.protein.unknown says: J as X (1); in p1" in caplog.text
    assert "only letters of nucleotides, read as a protein all the same: p2" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (">a\nMKTAYIAK\n>b\n\n", "given.fasta:3: found no protein, expected one; fill the cell, or remove the record"),
        (">a\nMK<mask>AY_KL\n", "'<' at residue 3 is not an amino acid of the ESM vocabulary, and no letter or gap"),
        (">a\n1 mktayiakqr\n", "'1' at residue 1 is not an amino acid of the ESM vocabulary, and no letter or gap"),
        (">a\nMKT--J-AY\n", "4 of 9 residues ('-' x 3, 'J' x 1) would be read as 'X', more than the share 0.2"),
        (">a\n" + "M" * 1_000_001 + "\n", "given.fasta:2: found a record of more than 1,000,000 characters"),
    ],
)
@pytest.mark.parametrize("command", ["score", "embed", "sample"])
def test_what_is_no_protein_is_refused_in_one_line(
    folder: Path, command: str, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = folder / "given.fasta", folder / ("no.safetensors" if command == "embed" else "no.csv")
    given.write_text(content)
    options = ["--task", "folding", "--num", "1", "--steps", "2"] if command == "sample" else []
    model = folder / ("two" if command == "sample" else "one")
    assert main([command, "--model", str(model), "--protein", str(given), *options, "--device", "cpu", "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not out.exists()


def test_embeddings_are_those_of_the_model_and_resume(folder: Path) -> None:
    given = fasta(folder / "embed.fasta", ["MKTAYIAK", "GGSW", "ACD"])
    for pool in ("residues", "mean", "begin"):
        out = folder / f"{pool}.safetensors"
        command = ["embed", "--model", str(folder / "one"), "--protein", str(given), "--out", str(out), "--device", "cpu"]
        assert main([*command, "--pool", pool, "--tokens", "12"]) == 0
    run = open_run(folder / "one", device="cpu")
    assert isinstance(run.model, Encoder)
    track = run.parts.tracks["protein"]
    expected = run.model.embed(pack([{"protein": track.encode("GGSW")}], {"protein": track}))["protein"]
    whole = load_file(folder / "residues.safetensors")
    assert list(whole) == ["p0", "p1", "p2"] or set(whole) == {"p0", "p1", "p2"}
    assert torch.allclose(whole["p1"], expected[1:-1], atol=1e-5)
    assert torch.allclose(load_file(folder / "mean.safetensors")["p1"], expected[1:-1].mean(0), atol=1e-5)
    assert torch.allclose(load_file(folder / "begin.safetensors")["p1"], expected[0], atol=1e-5)


def test_a_part_of_embeddings_that_was_cut_off_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command killed while it writes a part leaves no broken part behind, and the next one makes it again."""
    given, out = fasta(folder / "cut.fasta", ["MKTAYIAK", "GGSW"]), folder / "cut.safetensors"
    command = ["embed", "--model", str(folder / "one"), "--protein", str(given), "--out", str(out), "--device", "cpu"]

    def cut_off(tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("protlig_dd.runs.embed.save_file", cut_off)
        assert main(command) == 130
    assert main(command) == 0
    assert set(load_file(out)) == {"p0", "p1"}


def test_an_export_is_a_model_again(folder: Path) -> None:
    out = folder / "exported"
    assert main(["export", str(folder / "one"), "--out", str(out), "--licence", "MIT"]) == 0
    passport = json.loads((out / "passport.json").read_text())
    assert passport["licence"] == "MIT" and "0.0e+00" in passport["parity"] and passport["vocabularies"]["protein"]
    rows = sampled(folder, "--task", "sequence", "--length", "9", "--num", "2")
    again = sampled(folder, "--task", "sequence", "--length", "9", "--num", "2", model="exported")
    assert [row["protein"] for row in again] == [row["protein"] for row in rows]
    assert main(["export", str(folder / "one"), "--out", str(folder)]) == 1


def test_a_run_starts_from_a_published_folder_and_a_dplm2_from_a_dplm(folder: Path) -> None:
    proteins, codes = folder / "s.fasta", folder / "t.fasta"
    assert main(["export", str(folder / "one"), "--out", str(folder / "start")]) == 0
    paired = [f"data.path={proteins}", f"data.structure_path={codes}", *QUICK, f"train.init_from={folder / 'start'}"]
    assert main(["train", "dplm2/tiny", *paired, "--out", str(folder / "three")]) == 0


def test_repeated_names_are_numbered() -> None:
    given = [("a", "M"), ("b", "K"), ("a", "T"), ("a.2", "L"), ("a", "V")]
    assert [name for name, _ in numbered(given)] == ["a", "b", "a.3", "a.2", "a.4"]


def test_long_proteins_are_left_out_by_name_only_if_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = fasta(folder / "long.fasta", ["MKTAYIAK", "G" * 400])
    command = ["embed", "--model", str(folder / "one"), "--device", "cpu", "--protein", str(given)]
    assert main([*command, "--out", str(folder / "refused.safetensors")]) == 1
    assert "--too-long skip" in capsys.readouterr().err
    assert main([*command, "--out", str(folder / "kept.safetensors"), "--too-long", "skip"]) == 0
    told = capsys.readouterr().out
    assert "1 proteins over 256 tokens are left out: p1" in told and "1 proteins:" in told
