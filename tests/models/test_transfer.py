"""Starting one encoder from another: rows by symbol, a table that grows, adapters on top, frozen parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.models import DiTSettings
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.transfer import freeze_parameters, initialise_from, other_function
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import TrackSet
from tests.support.encoders import PAIRED, PROTEINS, SMALL, TRACKS, batch_of, random_model


def fresh(tracks: TrackSet, **changes: Any) -> Encoder:
    torch.manual_seed(7)
    shape = {"hidden_size": 16, "num_heads": 2, "num_blocks": 2}
    return EncoderSettings(**{**shape, **changes}).build(tracks, "bucketed").eval()


def start(model: Encoder, tracks: TrackSet, source: Encoder, source_tracks: TrackSet) -> list[str]:
    return initialise_from(model, tracks, source.state_dict(), source_tracks, "the source")


@torch.no_grad()
def protein_logits(model: Encoder) -> Tensor:
    empty: list[list[int]] = [[] for _ in PROTEINS]
    tracks = {"protein": PROTEINS} if len(model.tracks) == 1 else {"structure": empty, "protein": PROTEINS}
    logits: Tensor = model(batch_of(None, **tracks))["protein"]
    return logits


def test_the_same_shape_becomes_the_same_function() -> None:
    source, model = random_model(TRACKS), fresh(TRACKS)
    lines = start(model, TRACKS, source, TRACKS)
    assert torch.equal(protein_logits(model), protein_logits(source))
    assert lines == [f"started from the source: {len(model.state_dict())} tensors copied, 0 fresh"]


def test_an_untied_head_starts_from_the_tied_one() -> None:
    source, model = random_model(TRACKS), fresh(TRACKS, tied_head=False)
    start(model, TRACKS, source, TRACKS)
    assert torch.equal(protein_logits(model), protein_logits(source))


def test_a_sequence_encoder_starts_one_for_sequences_and_structures() -> None:
    """DPLM-2's start: the proteins' rows are the old ones, new rows look like them, and new letters have no bias."""
    source, model = random_model(TRACKS, token_dropout=False), fresh(PAIRED, token_dropout=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start(model, PAIRED, source, TRACKS)
    table, old = model.embedding.weight.detach(), source.embedding.weight.detach()
    assert torch.equal(table[:33], old) and model.head.decoder is not None
    assert torch.equal(model.head.decoder.weight[:33], old)
    assert torch.equal(model.head.bias[:33], source.head.bias) and not model.head.bias[33:].any()
    new = table[33:]
    assert torch.allclose(new.mean(), old.mean(), atol=4 * float(old.std()) / new.numel() ** 0.5)
    assert float(new.std() / old.std()) == pytest.approx(1, abs=0.2)
    assert not torch.equal(new, before["embedding.weight"][33:])
    assert torch.allclose(protein_logits(model)[:, :33], protein_logits(source), atol=1e-6)


def test_rows_are_matched_by_symbol() -> None:
    """A table with rows beyond the alphabet, and its mask there (SEDD's shape), starts from the published one."""
    wide = {"protein": ProteinTrack(num_rows=37, mask_id=36).build("protein")}
    source, model = random_model(TRACKS), fresh(wide)
    start(model, wide, source, TRACKS)
    shared = [i for symbol, i in TRACKS["protein"].vocabulary.ids.items() if wide["protein"].vocabulary.ids.get(symbol) == i]
    assert len(shared) >= 30
    assert torch.equal(model.embedding.weight[shared], source.embedding.weight[shared])


def test_other_sizes_and_other_models_are_refused() -> None:
    source = random_model(TRACKS)
    with pytest.raises(CheckpointError, match=r"the source: embedding.weight has shape \(33, 16\) there and \(33, 8\) here; use"):
        start(fresh(TRACKS, hidden_size=8), TRACKS, source, TRACKS)
    with pytest.raises(CheckpointError, match="none of its tensors fits this model"):
        initialise_from(fresh(TRACKS), TRACKS, {"embedding.weight": torch.zeros(3, 3), "x": torch.zeros(1)}, {}, "it")


def test_a_part_is_frozen_by_its_name() -> None:
    model = SMALL.build(TRACKS, "reference")
    assert freeze_parameters(model, (r"^blocks\.0\.",))[0].startswith(r"frozen by '^blocks\.0\.': ")
    assert {name.startswith("blocks.0.") for name, p in model.named_parameters() if not p.requires_grad} == {True}
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("blocks.0."))
    with pytest.raises(ConfigError, match="freeze: 'nothing' matches no parameter"):
        freeze_parameters(model, ("nothing",))


def test_settings_that_change_the_function_of_the_same_weights_are_told() -> None:
    """ESM-2's weights with token dropout off, or with another number of heads: every shape fits, and the logits are others."""
    published = EncoderSettings(hidden_size=32, num_heads=4, token_dropout=True)
    assert other_function(published, published, "it") == []
    assert other_function(EncoderSettings(hidden_size=32, num_heads=4, dropout=0.3), published, "it") == [], "no other function"
    (line,) = other_function(EncoderSettings(hidden_size=32, num_heads=4, token_dropout=False), published, "facebook/esm2")
    assert line.startswith("facebook/esm2: its weights were trained with model.token_dropout=True, and here it is False")
    assert len(other_function(EncoderSettings(hidden_size=32, num_heads=8, activation="gelu_tanh"), published, "it")) == 2
    assert other_function(DiTSettings(hidden_size=32, num_heads=4), published, "it") == [], "other families share what both have"
