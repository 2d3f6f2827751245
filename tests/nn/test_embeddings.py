"""Embeddings of noise levels and of per-example conditions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from protlig_dd.nn.layers import ConditionEmbedding, NoiseLevelEmbedding, sigma_features


def test_features_are_cosines_and_sines_of_sigma() -> None:
    features = sigma_features(torch.tensor([0.0, 2.0]))
    assert features.shape == (2, 256)
    torch.testing.assert_close(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    k = 5
    angle = 2.0 * math.exp(-math.log(10000) * k / 128)
    assert features[1, k].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert features[1, 128 + k].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_the_last_silu_can_be_left_out() -> None:
    sigma, with_silu = torch.rand(4), NoiseLevelEmbedding(6)
    without = NoiseLevelEmbedding(6, final_silu=False)
    without.load_state_dict(with_silu.state_dict())
    torch.testing.assert_close(with_silu(sigma), torch.nn.functional.silu(without(sigma)))


@pytest.mark.data
def test_features_and_embedding_are_sedds(shared: Path) -> None:
    golden = np.load(shared / "goldens" / "sedd" / "goldens_model.npz")
    sigma = torch.from_numpy(golden["sigma"])
    np.testing.assert_allclose(sigma_features(sigma), golden["timestep_embedding"], atol=1e-6)
    layer = NoiseLevelEmbedding(16, final_silu=False)
    prefix = "state/sigma_map."
    layer.load_state_dict({name.removeprefix(prefix): torch.from_numpy(golden[name]) for name in golden.files if name.startswith(prefix)})
    np.testing.assert_allclose(layer(sigma).detach(), golden["sigma_map"], atol=1e-5)


def test_conditions_start_at_nothing_and_an_absent_label_is_one_not_given() -> None:
    layer, like = ConditionEmbedding({"affinity_bin": 3, "kind": 2}, 4), torch.zeros(5, 4)
    labels = torch.tensor([-1, 0, 1, 2, -1])
    assert layer({"affinity_bin": labels}, like).abs().max() == 0
    for table in layer.tables.values():
        torch.nn.init.normal_(table.weight)
    found = layer({"affinity_bin": labels}, like)
    not_given = layer({}, like)
    torch.testing.assert_close(found[[0, 4]], not_given[[0, 4]])
    assert len(torch.unique(found, dim=0)) == 4, "each bin, and none, has a vector of its own"


def test_no_conditions_add_nothing() -> None:
    assert ConditionEmbedding({}, 4)({}, torch.ones(2, 4)).abs().max() == 0
