"""`inspect`, `prepare` and `download` as commands: the policies of a config, units of affinities, and one line for what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.cli.entry import main


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "tdc.csv"
    path.write_text("Drug_ID,Drug,Target,Y\n1,CCO,MKTAYIAKQR,43.0\n2,CCN,GSHMLEDPVD,10000.0\n3,CCC,MSTNPKPQRK,>0.016\n")
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_inspect_takes_the_unit_of_affinities(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "they look like concentrations, such as nM; set data.affinity.unit" in printed(capsys, "inspect", str(table))
    found = printed(capsys, "inspect", str(table), "--unit", "nM")
    assert "affinity: 5 to 7.367, median 6.183, in 2 rows (-log10 M from nM, as data.affinity.unit says)" in found
    assert f"1 kept with affinity given as a limit (< or >), left out; in {table}:4" in found


def test_inspect_takes_the_policies_of_a_config(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"extends: recipe/pairs\nname: mine\ndata: {{path: {table}, affinity: {{unit: nM, limits: as_values}}, max_record: 12}}\n"
    )
    found = printed(capsys, "inspect", str(table), "--config", str(config))
    assert "in 3 rows" in found and "1 kept with affinity given as a limit (< or >), taken as the value" in found
    table.write_text(table.read_text() + f"4,CCC,{'M' * 13},1\n")
    refused = printed(capsys, "inspect", str(table), "--config", str(config), code=1)
    assert "tdc.csv:5: found a record of more than 12 characters, reading stopped there; remove it, or raise data.max_record" in refused


def test_a_vocabulary_is_made_under_the_policies_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit")
    (tmp_path / "a.smi").write_text("[NH3][Pt]([NH3])(Cl)Cl\nOCC\n")
    config, out = tmp_path / "mine.yaml", tmp_path / "vocab.json"
    config.write_text(
        f"extends: recipe/ligand\nname: mine\ntracks: {{ligand: {{vocabulary: {out}}}}}\ndata: {{path: a.smi, molecules: {{canonical: true}}}}\n"
    )
    assert "tokens from 2 molecules" in printed(
        capsys, "prepare", "vocab", str(tmp_path / "a.smi"), "--out", str(out), "--config", str(config)
    )
    assert '"->"' in out.read_text() and '"<-"' in out.read_text()


def test_limits_are_an_option_of_bindingdb_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, "download", "davis", "--out", str(tmp_path), "--limits", "as_values", code=1)
    assert "download davis: its table has no limits such as '>10000', which only bindingdb has; leave out --limits" in words


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--ligand", "smiles\nCCO\nCCN\n", "--ligand: found 2 records, expected one; give it alone"),
        ("--ligand", "smiles,name\nCCO,a\n,b\n", "given.csv:3: found no ligand, expected one; fill the cell, or remove the record"),
        ("--protein", "protein,name\nMKTAYIAK,a\n,b\n", "given.csv:3: found no protein, expected one; fill the cell, or remove the record"),
    ],
)
def test_the_lead_and_its_protein_are_one_record(
    smoke_run: Path, tmp_path: Path, option: str, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.csv"
    given.write_text(content)
    others = ["--ligand", "CCO"] if option == "--protein" else []
    assert words in printed(capsys, "optimize", str(smoke_run), *others, option, str(given), "--device", "cpu", code=1)
