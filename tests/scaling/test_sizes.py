"""Sizes of a study: counts without memory, targets, and settings by dotted key."""

from __future__ import annotations

import pytest

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.config_files import read_config
from protlig_dd.device import choose_device
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Parts, experiment_from
from protlig_dd.scaling.sizes import changed, count, explicit_size, nearest_size, require_different

BASE = read_config("scaling/markov")


def test_the_count_is_that_of_the_built_model() -> None:
    model = Parts(experiment_from(BASE)).build_model(choose_device("cpu"))
    total, tables = count(BASE)
    assert total == count_parameters(model)
    assert tables == model.embedding.weight.numel()


@pytest.mark.parametrize("target", [1e5, 3e5, 1e6, 3e6])
def test_a_target_is_met_at_about_the_bases_proportions(target: float) -> None:
    size = nearest_size(BASE, target)
    assert abs(size.params / target - 1) < 0.15
    assert count(changed(BASE, size.changes))[0] == size.params
    model = BASE["model"]
    aspect = model["hidden_size"] / model["num_blocks"]
    assert 1 / 3 < size.changes["model.hidden_size"] / size.changes["model.num_blocks"] / aspect < 3
    assert size.changes["model.hidden_size"] // size.changes["model.num_heads"] == model["hidden_size"] // model["num_heads"]


def test_sizes_grow_with_their_targets() -> None:
    sizes = [nearest_size(BASE, target) for target in (3e4, 1e5, 3e5, 1e6)]
    assert [s.params for s in sizes] == sorted({s.params for s in sizes})


def test_muons_rate_falls_with_the_root_of_the_width_and_adamws_stays() -> None:
    base = changed(BASE, {"train.optim.kind": "muon", "train.optim.lr": 0.01})
    narrow, wide = (nearest_size(base, target).changes for target in (2e4, 1e6))
    for changes in (narrow, wide):
        assert changes["train.optim.lr"] == pytest.approx(0.01 * (64 / changes["model.hidden_size"]) ** 0.5, rel=1e-2)
    assert narrow["train.optim.lr"] > 1.5 * wide["train.optim.lr"]
    adamw = changed(BASE, {"train.optim.kind": "adamw"})
    assert "train.optim.lr" not in nearest_size(adamw, 1e6).changes


def test_an_explicit_size_changes_what_it_says() -> None:
    size = explicit_size(BASE, "hidden_size=32,num_heads=2,num_blocks=1,train.optim.lr=1e-4")
    config = experiment_from(changed(BASE, size.changes))
    assert config.model.hidden_size == 32 and config.train.optim.lr == 1e-4
    assert BASE["model"]["hidden_size"] == 64, "the base is left alone"


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 'hidden_size', expected key=value"):
        explicit_size(BASE, "hidden_size")
    with pytest.raises(ConfigError, match="hiden_size: unknown setting .did you mean 'hidden_size'"):
        explicit_size(BASE, "hiden_size=32")
    with pytest.raises(ConfigError, match="--sizes: found 100, the smallest shape of this model"):
        nearest_size(BASE, 100.0)
    with pytest.raises(ConfigError, match="two of them have"):
        require_different([explicit_size(BASE, "num_blocks=1")] * 2)
