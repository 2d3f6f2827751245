"""Merges: learned in order of frequency, applied without losing a symbol, and as a vocabulary that a run learns and keeps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.ligand import load_merges, save_vocabulary, tokenize_smiles
from protlig_dd.tokens.merges import MergedSplit, learn_merges, merge
from protlig_dd.tokens.settings import LigandTrack

WORDS = st.lists(st.lists(st.sampled_from(list("abcd")), max_size=12), min_size=1, max_size=8)


def learned_plainly(texts: list[list[str]], number: int) -> list[tuple[str, str]]:
    """Count all pairs again after each merge: what `learn_merges` keeps up to date."""
    words, merges = [list(text) for text in texts], list[tuple[str, str]]()
    while len(merges) < number:
        counts = Counter(pair for word in words for pair in zip(word, word[1:], strict=False))
        best = min((pair for pair in counts), key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        words = [merge(word, {best: 0}) for word in words]
    return merges


@given(WORDS, st.integers(0, 12))
def test_merges_are_those_of_counting_again_after_each(texts: list[list[str]], number: int) -> None:
    assert learn_merges(texts, number) == learned_plainly(texts, number)


@given(WORDS, st.integers(0, 12))
def test_merged_symbols_spell_the_same_text(texts: list[list[str]], number: int) -> None:
    ranks = {pair: i for i, pair in enumerate(learn_merges(texts, number))}
    for text in texts:
        pieces = merge(text, ranks)
        assert "".join(pieces) == "".join(text)
        assert len(pieces) <= len(text)
        assert not any(pair in ranks for pair in zip(pieces, pieces[1:], strict=False))


@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_a_file_with_merges_makes_a_track_of_larger_tokens(tmp_path: Path, notation: str) -> None:
    plain = LigandTrack(notation=notation).build("ligand")  # type: ignore[arg-type]
    texts = [plain.split(s) for s in ["c1ccccc1CC(=O)O", "Cc1ccccc1", "c1ccccc1N", "OC(=O)Cc1ccccc1"]]
    save_vocabulary(tmp_path / "v.json", Counter(s for text in texts for s in text), merges=learn_merges(texts, 20))
    track = LigandTrack(notation=notation, vocabulary=str(tmp_path / "v.json")).build("ligand")  # type: ignore[arg-type]
    ids = track.encode("c1ccccc1CC(=O)O")
    assert len(ids) < len(plain.encode("c1ccccc1CC(=O)O")) / 2
    assert track.decode(ids) == plain.decode(plain.encode("c1ccccc1CC(=O)O"))


def test_errors_of_the_notation_name_their_place() -> None:
    split = MergedSplit(tokenize_smiles, [("C", "C")])
    assert split("CCO") == ["CC", "O"]
    with pytest.raises(FormatError, match="a.smi:2"):
        split("C!", where="a.smi:2")


@pytest.mark.parametrize("merges", [["CC"], [["C", "O", "N"]], [["C", "X"]], [[1, 2]]])
def test_a_merge_of_unknown_tokens_is_refused(tmp_path: Path, merges: object) -> None:
    (tmp_path / "v.json").write_text(json.dumps({"tokens": ["C", "O", "CC"], "merges": merges}))
    with pytest.raises(FormatError, match="v.json: found the merge .*expected two tokens that make a third"):
        load_merges(tmp_path / "v.json")


def test_learned_and_the_number_of_merges_go_together() -> None:
    with pytest.raises(ValueError, match="merges: found 0 with vocabulary 'learned'"):
        LigandTrack(vocabulary="learned")
    with pytest.raises(ValueError, match="merges: found 3 with vocabulary 'built-in'"):
        LigandTrack(merges=3)
    with pytest.raises(ConfigError, match="'learned' is made when training begins"):
        LigandTrack(vocabulary="learned", merges=3).build("ligand")
