"""Ligands: exact round trips, vocabularies as files, and what is no SMILES."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import FormatError
from protlig_dd.tokens.ligand import ligand_vocabulary, load_vocabulary, save_vocabulary, tokenize_smiles
from protlig_dd.tokens.settings import LigandTrack

BRACKETS = st.from_regex(r"\[[0-9]{0,3}[A-Za-z]{1,2}@{0,2}(H[0-9]?)?([+-][0-9]?)?(:[0-9]+)?\]", fullmatch=True)
TOKENS = st.sampled_from(
    ["C", "N", "c", "n", "Cl", "Br", "B", "S", "(", ")", "=", "#", "1", "2", "%12", "%(123)", "/", "\\", ".", "-", ":", "$", "*", "~"]
)


@given(st.lists(TOKENS | BRACKETS, min_size=1, max_size=40))
def test_strings_made_of_tokens_come_back_and_are_cut_where_they_were_joined(tokens: list[str]) -> None:
    smiles = "".join(tokens)
    assert "".join(tokenize_smiles(smiles)) == smiles
    ambiguous = any(a + b in ("Cl", "Br") for a, b in zip(tokens, tokens[1:], strict=False))
    if not ambiguous:
        assert tokenize_smiles(smiles) == tokens


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("ClCBr", ["Cl", "C", "Br"]),
        ("[13C@@H](F)Cl", ["[13C@@H]", "(", "F", ")", "Cl"]),
        ("C%12CC%12", ["C", "%12", "C", "C", "%12"]),
        ("C%(100)C", ["C", "%(100)", "C"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("[Na+].[Cl-]", ["[Na+]", ".", "[Cl-]"]),
        ("CN", ["C", "N"]),
        ("Sc1ccccc1", ["S", "c", "1", "c", "c", "c", "c", "c", "1"]),
        ("c1cscn1", ["c", "1", "c", "s", "c", "n", "1"]),
    ],
)
def test_known_cuts(smiles: str, tokens: list[str]) -> None:
    assert tokenize_smiles(smiles) == tokens


@pytest.mark.parametrize(
    ("smiles", "words"),
    [
        ("CCX", "x.smi:3: 'X' at character 3 of 'CCX' is not SMILES; expected atoms, bonds, rings and branches"),
        ("C C", "' ' at character 2"),
        ("[CH", "'[' at character 1"),
        ("CC]", "']' at character 3"),
        ("C%1", "'%' at character 2"),
        ("H", "'H' at character 1"),
        ("CCO\r", "at character 4"),
        ("C[]C", "'[' at character 2"),
        ("C\u0441C", "at character 2"),
        ("", "x.smi:3: an empty string is not SMILES"),
    ],
)
def test_what_is_no_smiles_is_quoted_with_its_place(smiles: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        tokenize_smiles(smiles, where="x.smi:3")
    assert words in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_tokens_that_join_to_it_or_an_error_in_words(text: str) -> None:
    try:
        assert "".join(tokenize_smiles(text)) == text
    except FormatError as error:
        assert "is not SMILES" in str(error)


def test_the_built_in_vocabulary_emits_every_token_but_specials() -> None:
    v = ligand_vocabulary()
    assert v.symbols[:5] == ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")
    assert v.special_ids == {0, 1, 2, 3, 4}
    assert v.emittable_ids == tuple(range(5, len(v.symbols)))
    assert all(tokenize_smiles(symbol) == [symbol] for symbol in v.symbols[5:])
    assert ligand_vocabulary(num_rows=2365).num_rows == 2365


def test_an_unknown_token_names_record_and_remedy() -> None:
    track = LigandTrack().build("ligand")
    with pytest.raises(FormatError) as caught:
        track.encode("C[U+6]", where="x.smi:9")
    assert str(caught.value) == (
        "x.smi:9: '[U+6]' at position 2 is not a symbol of the built-in ligand vocabulary; "
        "add it with 'protlig prepare vocab', or remove the record"
    )


def test_a_vocabulary_is_made_saved_and_loaded(tmp_path: Path) -> None:
    counts = Counter(token for smiles in ("CCO", "CCN", "CBr") for token in tokenize_smiles(smiles))
    path = tmp_path / "v.json"
    made = save_vocabulary(path, counts)
    assert made.symbols[5:] == ("C", "Br", "N", "O"), "most frequent first, then by name"
    assert load_vocabulary(path).fingerprint == made.fingerprint
    assert load_vocabulary(path, num_rows=50).num_rows == 50
    assert save_vocabulary(path, counts, min_count=2).symbols[5:] == ("C",)
    track = LigandTrack(vocabulary=str(path)).build("ligand")
    assert track.decode(track.encode("CCC")) == "CCC"


HUGGING_FACE = {"<bos>": 0, "<eos>": 1, "<pad>": 2, "<mask>": 3, "C": 4, "[nH]": 5, "Cl": 7, "<unk>": 8}


@pytest.mark.parametrize(
    "content",
    [
        HUGGING_FACE,
        {"model": {"type": "WordLevel", "vocab": HUGGING_FACE}, "added_tokens": []},
        {
            "model": {"vocab": {t: i for t, i in HUGGING_FACE.items() if not t.startswith("<")}},
            "added_tokens": [{"id": i, "content": t, "special": True} for t, i in HUGGING_FACE.items() if t.startswith("<")],
        },
    ],
    ids=["vocab.json", "tokenizer.json", "tokenizer.json with added tokens"],
)
def test_hugging_face_ids_are_kept(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    v = load_vocabulary(path)
    assert all(v.ids[token] == i for token, i in HUGGING_FACE.items())
    assert (v.mask_id, v.begin_id, v.end_id, v.pad_id, v.unknown_id) == (3, 0, 1, 2, 8)
    assert v.emittable_ids == (4, 5, 7), "the hole at 6 is no token"
    track = LigandTrack(vocabulary=str(path)).build("ligand")
    assert track.encode("CCl[nH]") == [0, 4, 7, 5, 1]
    assert track.decode([0, 4, 7, 3, 5, 1]) == "CCl_[nH]"


@pytest.mark.parametrize(
    ("names", "ends"), [(("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"), (0, 1)), (("<s>", "</s>", "<pad>", "<mask>", "<unk>"), (0, 1))]
)
def test_other_families_of_special_tokens_are_known(tmp_path: Path, names: tuple[str, ...], ends: tuple[int, int]) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({**{name: i for i, name in enumerate(names)}, "C": 5}))
    v = load_vocabulary(path)
    assert (v.begin_id, v.end_id, v.pad_id, v.mask_id, v.unknown_id) == (0, 1, 2, 3, 4)
    assert v.emittable_ids == (5,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable as a vocabulary"),
        ("", "not readable as a vocabulary"),
        ("[]", "expected 'tokens', or a Hugging Face map of tokens to ids"),
        ("{}", "expected 'tokens'"),
        ('{"model": {"vocab": [["C", -1.0]]}}', "expected 'tokens'"),
        ('{"C": "x"}', "expected 'tokens'"),
        ('{"C": -1, "<mask>": 0}', "expected 'tokens'"),
        ('{"C": 0, "<maks>": 1}', "found no '<mask>' token (did you mean '<maks>'?); expected one for absorbing diffusion"),
        ('{"C": 0, "N": 0, "<mask>": 1}', "'C' and 'N' share the id 0; expected one token an id"),
        ('{"tokens": []}', "emittable ids must be non-empty"),
        ('{"tokens": ["<mask>", "C"]}', "a symbol occurs twice"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        load_vocabulary(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_an_absent_or_binary_vocabulary_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "binary"):
        with pytest.raises(FormatError, match="not readable as a vocabulary .*make one with: protlig prepare vocab"):
            load_vocabulary(tmp_path / name)


@pytest.mark.data
def test_all_of_zinc_comes_back(shared: Path) -> None:
    """Each of 29,445 molecules, character by character, and the built-in vocabulary knows all its tokens."""
    seen: Counter[str] = Counter()
    for name in ("train.txt", "test.txt"):
        for smiles in (shared / "data" / "zinc250k" / name).read_text().split():
            tokens = tokenize_smiles(smiles)
            assert "".join(tokens) == smiles
            seen.update(tokens)
    assert sum(seen.values()) > 1_000_000
    unknown = set(seen) - set(ligand_vocabulary().symbols)
    assert sum(seen[token] for token in unknown) / sum(seen.values()) < 1e-4, unknown
