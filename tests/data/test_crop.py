"""Windows of long proteins: chosen by the protein, the same everywhere; splits and leakage go by whole records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.data.bundle import load
from protlig_dd.data.crop import Crop, crop_table, uncropped
from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.readers.records import Record
from protlig_dd.data.settings import PairData, SequenceData
from protlig_dd.data.splits import ProteinSplit, RandomSplit
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackSet

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TRACKS: TrackSet = {"protein": ProteinTrack(max_length=12).build("protein"), "ligand": LigandTrack(max_length=20).build("ligand")}


def protein(seed: int, length: int = 40) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def table_of(*proteins: str, tracks: TrackSet = TRACKS, last: int = 0) -> TokenTable:
    records = [Record(where=f"a:{i}", texts={"protein": p, "ligand": "C" * (1 + i % 9)}) for i, p in enumerate(proteins)]
    return encode_records(records, Encoder(tracks, too_long="crop", last_residue=last))[0]


def windows(table: TokenTable) -> list[str]:
    return [TRACKS["protein"].decode(table.example(i)["protein"].tolist()) for i in range(len(table))]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 3), st.sampled_from(["random", "start"]))
def test_a_protein_has_one_window_in_all_rows_and_tables(seeds: list[int], seed: int, window: str) -> None:
    proteins = [protein(s, 8 + 7 * s) for s in seeds]
    found = windows(crop_table(table_of(*proteins), TRACKS, Crop(window=window), seed)[0])  # type: ignore[arg-type]
    for whole, cut in zip(proteins, found, strict=True):
        assert cut in whole
        assert len(cut) == min(len(whole), 10)
        assert cut == windows(crop_table(table_of(whole), TRACKS, Crop(window=window), seed)[0])[0]  # type: ignore[arg-type]
        if window == "start":
            assert whole.startswith(cut)


def test_windows_differ_between_proteins_and_seeds_and_keep_their_ends() -> None:
    proteins = [protein(i) for i in range(30)]
    cropped, count = crop_table(table_of(*proteins), TRACKS, Crop(), 0)
    assert count == 30
    starts = [p.index(w) for p, w in zip(proteins, windows(cropped), strict=True)]
    assert len(set(starts)) > 8
    assert windows(crop_table(table_of(*proteins), TRACKS, Crop(), 1)[0]) != windows(cropped)
    ids, vocabulary = cropped.example(3)["protein"], TRACKS["protein"].vocabulary
    assert (len(ids), ids[0], ids[-1]) == (12, vocabulary.begin_id, vocabulary.end_id)
    assert cropped.tracks["protein"].num_tokens == 30 * 12


def test_rows_are_selected_without_losing_their_windows() -> None:
    cropped, _ = crop_table(table_of(*(protein(i) for i in range(6))), TRACKS, Crop(), 0)
    assert windows(cropped.select([4, 1])) == [windows(cropped)[4], windows(cropped)[1]]
    whole = uncropped(cropped.select([4]))
    assert TRACKS["protein"].decode(whole.example(0)["protein"].tolist()) == protein(4)


def test_residues_by_number_are_those_of_every_protein_and_short_ones_are_dropped(tmp_path: Path) -> None:
    rows = [f"{protein(i, 30)},{'C' * (i + 1)}" for i in range(8)] + ["ACDEFGHIKL,CCO"]
    (tmp_path / "p.csv").write_text("\n".join(["protein,smiles", *rows]))
    data = PairData(path=str(tmp_path / "p.csv"), too_long="crop", crop=Crop(residues="11-18"), split=RandomSplit(validation_fraction=0.2))
    bundle = load(data, TRACKS)
    assert set(windows(bundle.train)) <= {protein(i, 30)[10:18] for i in range(8)}
    assert any("1 dropped" in line for line in bundle.report.lines())
    with pytest.raises(ConfigError, match="data.crop.residues: found '1-30', the protein takes 10 residues"):
        load(PairData(path=str(tmp_path / "p.csv"), too_long="crop", crop=Crop(residues="1-30")), TRACKS)


@pytest.mark.parametrize("residues", ["0-3", "9-2", "a-b", "5"])
def test_residues_that_are_no_range_are_refused(residues: str) -> None:
    with pytest.raises(ValueError, match="expected the first and last residue, counted from 1, such as 10-110"):
        Crop(residues=residues)


def test_a_rule_without_cropping_is_refused() -> None:
    with pytest.raises(ValueError, match="crop: found start with too_long=drop"):
        SequenceData(path="x", crop=Crop(window="start"))


def test_a_cold_split_of_cropped_proteins_shares_none(tmp_path: Path) -> None:
    """The windows of one protein were once chosen by row, so that each was a protein of its own for the split."""
    rows = [f"{protein(i % 10, 60)},{'C' * (1 + i % 7)}{'N' * (1 + i // 7)}" for i in range(60)]
    (tmp_path / "p.csv").write_text("\n".join(["protein,smiles", *rows]))
    data = PairData(path=str(tmp_path / "p.csv"), too_long="crop", split=ProteinSplit(validation_fraction=0.2))
    bundle = load(data, TRACKS)
    assert "protein over 10 distinct proteins" in bundle.report.split
    assert not set(windows(bundle.train)) & set(windows(bundle.validation))
    whole = [
        {TRACKS["protein"].decode(uncropped(t).example(i)["protein"].tolist()) for i in range(len(t))}
        for t in (bundle.train, bundle.validation)
    ]
    assert not whole[0] & whole[1]
    assert len(whole[0] | whole[1]) == 10


def test_leakage_is_measured_on_whole_proteins(tmp_path: Path) -> None:
    shared, rows = protein(1, 60), []
    for i in range(30):
        rows.append(f"{shared if i % 2 else protein(50 + i, 60)},{'C' * (1 + i % 9)}{'N' * (1 + i // 9)}")
    (tmp_path / "p.csv").write_text("\n".join(["protein,smiles", *rows]))
    bundle = load(PairData(path=str(tmp_path / "p.csv"), too_long="crop", split=RandomSplit(validation_fraction=0.3)), TRACKS)
    assert bundle.report.leakage is not None
    found = [TRACKS["protein"].decode(uncropped(bundle.validation).example(i)["protein"].tolist()) for i in range(len(bundle.validation))]
    known = {TRACKS["protein"].decode(uncropped(bundle.train).example(i)["protein"].tolist()) for i in range(len(bundle.train))}
    share = sum(one in known for one in found) / len(found)
    assert f"{share:.1%} of validation proteins stand in training" in bundle.report.leakage.line()


@pytest.mark.parametrize("ends", [False, True])
def test_aligned_tracks_have_one_window(ends: bool) -> None:
    tracks = {
        "protein": ProteinTrack(max_length=24).build("protein"),
        "structure": StructureTrack(alphabet="3di", max_length=20, add_ends=ends).build("structure"),
    }
    shift = dict(zip(LETTERS, LETTERS[1:] + LETTERS[0], strict=True))
    texts = [protein(i, 60) for i in range(20)]
    records = [Record(where=f"a:{i}", texts={"protein": p, "structure": "".join(map(shift.get, p))}) for i, p in enumerate(texts)]  # type: ignore[arg-type]
    whole, _ = encode_records(records, Encoder(tracks, too_long="crop"))
    table, count = crop_table(whole, tracks, Crop(), 0)
    assert count == 20
    for i, text in enumerate(texts):
        ids = table.example(i)
        cut = tracks["protein"].decode(ids["protein"].tolist())
        assert cut in text
        assert len(cut) == min(22, 20 - 2 * ends)
        assert tracks["structure"].decode(ids["structure"].tolist()) == "".join(map(shift.get, cut))  # type: ignore[arg-type]
