"""Sequences of causal models: what a model sees, and what of it is learned."""

from __future__ import annotations

import pytest
import torch

from protlig_dd.causal.sequences import CausalBatch, minimal_symbols, minimal_vocabulary, pack_sequences, structure_symbols, vocabulary_of
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import pack
from tests.support.causal_models import PAIRS, TRACKS, VOCABULARY, batch_of


def sequences(batch: CausalBatch) -> list[str]:
    flat, at = batch.tokens.tolist(), batch.layout.offsets
    return [VOCABULARY.text(flat[a:b]) for a, b in zip(at[:-1], at[1:], strict=True)]


def test_the_minimal_vocabulary_is_the_documented_one() -> None:
    symbols = minimal_symbols(TRACKS["structure"])
    assert len(symbols) == VOCABULARY.num_rows == 48
    assert symbols[:7] == ("<PAD>", "<EOS>", "<BOS>", "<UNK>", "<AA>", "<SEP>", "<3Di>")
    assert "".join(symbols[7:28]) == "ACDEFGHIKLMNPQRSTVWYX"
    assert "".join(symbols[28:]) == "acdefghiklmnpqrstvwy"
    assert (VOCABULARY.pad_id, VOCABULARY.end_id, VOCABULARY.code_ids) == (0, 1, tuple(range(28, 48)))


def test_numbered_codes_are_one_symbol_each() -> None:
    symbols = structure_symbols(StructureTrack(alphabet="dplm2").build("structure"))
    assert len(set(symbols)) == 8192 and symbols[:2] == ("<S0>", "<S1>") and symbols[-1] == "<S8191>"


def test_a_sequence_reads_as_documented() -> None:
    expected = [
        "<AA> M K T A Y <SEP> <3Di> d d p v v <EOS>",
        "<AA> G W <SEP> <3Di> d a <EOS>",
        "<AA> A C D E F G H I K L M N P Q R S T V W Y X X X X X <SEP> <3Di> a c d e f g h i k l m n p q r s t v w y d d d d d <EOS>",
    ]
    assert sequences(pack_sequences(batch_of(*PAIRS), VOCABULARY)) == expected


def test_what_is_trained_on_is_the_structure_and_the_end() -> None:
    """The places in front of the learned tokens, decoded: never a residue but the mark before the first code."""
    packed = pack_sequences(batch_of(*PAIRS[:2]), VOCABULARY)
    assert VOCABULARY.text(packed.targets.tolist()) == "d d p v v <EOS> d a <EOS>"
    assert VOCABULARY.text(packed.tokens[packed.rows].tolist()) == "<3Di> d d p v v <3Di> d a"
    assert packed.num_tokens == 9
    assert torch.equal(packed.tokens[packed.rows + 1], packed.targets)


def test_a_prompt_is_the_sequence_up_to_the_mark_and_codes_come_back() -> None:
    batch = batch_of(PAIRS[0])
    packed = pack_sequences(batch, VOCABULARY)
    prompt = VOCABULARY.prompt(batch.tracks["protein"].tokens.tolist())
    assert packed.tokens[: len(prompt)].tolist() == prompt
    rest = packed.tokens[len(prompt) :].tolist()
    assert TRACKS["structure"].decode(VOCABULARY.structure(rest)) == "DDPVV"
    assert VOCABULARY.structure([*rest, *rest]) == VOCABULARY.structure(rest), "nothing is read behind the end"


def test_ends_of_the_tracks_make_no_difference() -> None:
    plain = {
        "protein": ProteinTrack(add_ends=False).build("protein"),
        "structure": StructureTrack(alphabet="3di", add_ends=False).build("structure"),
    }
    bare = pack([{n: plain[n].encode(t) for n, t in zip(plain, pair, strict=True)} for pair in PAIRS[:2]], plain)
    found = pack_sequences(bare, minimal_vocabulary(*plain.values()))
    assert torch.equal(found.tokens, pack_sequences(batch_of(*PAIRS[:2]), VOCABULARY).tokens)


def test_a_begin_token_of_a_base_stands_in_front() -> None:
    ids = {s: i + 10 for i, s in enumerate(minimal_symbols(TRACKS["structure"]))}
    vocabulary = vocabulary_of(*TRACKS.values(), ids, num_rows=70, end=2, pad=2, begin=(1,))
    packed = pack_sequences(batch_of(*PAIRS[:2]), vocabulary)
    assert packed.tokens.tolist()[:3] == [1, ids["<AA>"], ids["M"]]
    assert packed.layout.lengths == (15, 9) and packed.tokens[14] == 2 and packed.tokens[15] == 1
    assert packed.targets.tolist()[-1] == 2


def test_an_example_without_a_track_is_refused() -> None:
    examples = [{"protein": TRACKS["protein"].encode("MK")}]
    with pytest.raises(ValueError, match="example 0 of a batch has no structure; a causal model needs both tracks"):
        pack_sequences(pack(examples, TRACKS), VOCABULARY)


def test_a_token_that_is_no_code_is_refused() -> None:
    structure = TRACKS["structure"].vocabulary
    examples = [{"protein": TRACKS["protein"].encode("MK"), "structure": [structure.mask_id, 36]}]
    with pytest.raises(ValueError, match=r"token 56 in track 'structure', which is no code"):
        pack_sequences(pack(examples, TRACKS), VOCABULARY)


def test_two_symbols_of_one_id_are_refused() -> None:
    ids = {s: i for i, s in enumerate(minimal_symbols(TRACKS["structure"]))}
    with pytest.raises(ConfigError, match="two of its symbols one id"):
        vocabulary_of(*TRACKS.values(), {**ids, "a": ids["A"]}, num_rows=48, end=1, pad=0)
