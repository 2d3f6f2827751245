"""The Kanzi autoencoder: tokens of a chain are its own, chains of any length, seeded samples, the published layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from protlig_dd.errors import CheckpointError, FormatError
from protlig_dd.kanzi.batches import pack_traces
from protlig_dd.kanzi.blocks import distance_edges
from protlig_dd.kanzi.flow import FlowSampler
from protlig_dd.kanzi.model import Kanzi, KanziSettings
from protlig_dd.kanzi.objective import KanziObjective
from protlig_dd.kanzi.published import published_name, read_kanzi, to_published
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.tokens.tracks import Layout
from tests.support.folding_world import published_values

SMALL = KanziSettings(
    encoder_size=16,
    encoder_heads=2,
    encoder_blocks=2,
    window=5,
    pair_size=8,
    decoder_size=24,
    decoder_heads=2,
    decoder_blocks=2,
    dropout=0.0,
)


def built(settings: KanziSettings = SMALL, *, lively: bool = True) -> Kanzi:
    """A model in evaluation mode whose every parameter matters: those that start at zero are drawn as well."""
    torch.manual_seed(0)
    model = settings.build("bucketed").eval()
    if lively:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return model


def walk(length: int, seed: int = 0) -> np.ndarray:
    """A chain with steps of 3.8 Angstrom that bends slowly."""
    steps = np.random.default_rng(seed).normal(size=(length, 3)).cumsum(0)
    steps = steps / np.linalg.norm(steps, axis=1, keepdims=True) * 3.8
    return steps.cumsum(0).astype(np.float32)


def tokenizer(model: Kanzi | None = None, **options: int) -> KanziTokenizer:
    return KanziTokenizer(model or built(), sampler=FlowSampler(num_steps=4), **options)


def test_a_chains_tokens_do_not_depend_on_its_batch() -> None:
    chains = [walk(n, seed=n) for n in (9, 40, 1, 40, 23, 300)]
    tokens = tokenizer().encode(chains)
    assert [len(row) for row in tokens] == [9, 40, 1, 40, 23, 300]
    assert len({i for row in tokens for i in row}) > 20
    assert [tokenizer().encode([chain])[0] for chain in chains] == tokens
    assert tokenizer(residues_a_call=50).encode(chains) == tokens
    assert tokenizer().encode(chains[::-1]) == tokens[::-1]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 11, 255, 256, 257, 600])
def test_chains_of_any_length_are_encoded_and_decoded(length: int) -> None:
    one = tokenizer()
    tokens = one.encode([walk(length)])[0]
    assert len(tokens) == length and all(0 <= i < 1000 for i in tokens)
    coords = one.decode([tokens], sampler=FlowSampler(num_steps=1))[0]
    assert coords.shape == (length, 3) and coords.dtype == np.float32 and np.isfinite(coords).all()
    assert np.abs(coords.mean(0)).max() < 1e-3


def test_a_token_depends_on_its_neighbours_and_on_nothing_beyond_the_window_but_the_centre() -> None:
    model = built()
    points = pack_traces([walk(60)]).points
    far = points.clone()
    far[40:] += 1.0
    hidden, moved = (model.encoder(x, Layout((60,))) for x in (points, far))
    reach = SMALL.window * SMALL.encoder_blocks
    assert torch.equal(hidden[: 40 - reach], moved[: 40 - reach])
    assert not torch.allclose(hidden[40 - reach : 40], moved[40 - reach : 40], atol=1e-4)


def test_tokens_do_not_change_with_translation() -> None:
    chain = np.round(walk(120) * 1024).astype(np.float32) / 1024
    one = tokenizer()
    moved = one.encode([chain + np.float32([256, -64, 8.5])])[0]
    assert moved == one.encode([chain])[0]
    turned = one.encode([chain[:, [1, 2, 0]]])[0]
    assert turned != moved, "raw coordinates go in: only training makes tokens keep under rotation"


@pytest.mark.parametrize("window", [64, 70, 500])
def test_a_window_that_no_chain_exceeds_sees_everything(window: int) -> None:
    model, wide = (built(replace(SMALL, window=n)) for n in (window, 10_000))
    chains = [walk(60, seed=1), walk(1), walk(64, seed=2)]
    batch = pack_traces(chains)
    together = wide.encoder(batch.points, batch.layout)
    assert torch.allclose(model.encoder(batch.points, batch.layout), together, atol=1e-5)
    alone = pack_traces(chains[2:])
    assert torch.allclose(wide.encoder(alone.points, alone.layout), together[61:], atol=1e-5)
    assert wide.forward_flops(batch.layout) < 1.3 * built().forward_flops(batch.layout)


def test_pair_entries_are_distance_and_offset() -> None:
    """The table's entry of a pair against the plain formula: bucket of the squared distance, and place of the offset."""
    from protlig_dd.kanzi.windowed import tiles_of

    model, layout = built(), Layout((20,))
    points = pack_traces([walk(20)]).points * 3
    tiles = tiles_of(layout, SMALL.window)
    table, entry = model.encoder.pairs(points, tiles)
    width = 2 * SMALL.window + 1
    pairs = model.encoder.pairs
    for i, j in ((0, 0), (3, 5), (12, 7), (19, 14)):
        bucket = int((distance_edges() < (points[i] - points[j]).square().sum()).sum())
        tile, row = divmod(i, SMALL.window)
        at = int(entry[tile, row, j - (tile - 1) * SMALL.window])
        assert at == bucket * width + (i - j) + SMALL.window
        vector = pairs.mlp(pairs.norm(pairs.distances.weight[bucket] + pairs.offsets.weight[64 + i - j]))
        assert torch.allclose(table[at], vector, atol=1e-5)


def test_samples_are_seeded_and_do_not_depend_on_the_batch() -> None:
    one = tokenizer()
    rows = [np.random.default_rng(i).integers(0, 1000, n).tolist() for i, n in enumerate((12, 30, 12))]
    together = one.decode(rows)
    for row, coords in zip(rows, together, strict=True):
        assert np.allclose(one.decode([row])[0], coords, atol=1e-3)
    assert np.array_equal(one.decode(rows)[1], together[1])
    assert not np.allclose(one.decode(rows, seed=1)[1], together[1], atol=0.1)
    assert not np.allclose(together[0], together[2], atol=0.1)


def test_the_network_is_called_once_a_step_and_twice_with_guidance() -> None:
    model, calls = built(), []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    KanziTokenizer(model, sampler=FlowSampler(num_steps=5)).decode([[1, 2, 3]])
    assert len(calls) == 5
    guided = KanziTokenizer(model, sampler=FlowSampler(num_steps=5, guidance=2.0)).decode([[1, 2, 3]])
    assert len(calls) == 15 and np.isfinite(guided[0]).all()


@pytest.mark.parametrize("code_positions", ["continued", "restarted"])
def test_the_velocity_of_a_chain_depends_on_its_own_points_time_and_codes(code_positions: str) -> None:
    model = built(replace(SMALL, code_positions=code_positions))  # type: ignore[arg-type]
    layout = Layout((7, 12))
    data, points, time = torch.randn(19, 3), torch.randn(19, 3), torch.tensor([0.2, 0.9])
    whole = model(data, points, time, layout)
    alone = model(data[7:], points[7:], time[1:], Layout((12,)))
    assert torch.allclose(whole.velocity[7:], alone.velocity, atol=1e-5)
    assert torch.equal(whole.tokens[7:], alone.tokens)
    for change in ("data", "points", "time", "given"):
        d, p, t, g = data.clone(), points.clone(), time.clone(), torch.tensor([True, True])
        if change == "given":
            g[0] = False
        else:
            {"data": d, "points": p, "time": t}[change][0] += 0.5 if change == "time" else 2.0
        other = model(d, p, t, layout, g).velocity
        assert not torch.allclose(other[:7], whole.velocity[:7], atol=1e-4), change
        assert torch.allclose(other[7:], whole.velocity[7:], atol=1e-5), change


def test_codes_stand_behind_the_points_or_on_them() -> None:
    """Attention sees differences of places: a code that moves by the length of the chain is another input, but in a chain of none."""
    one, other = built(), built(KanziSettings(**{**vars(SMALL), "code_positions": "restarted"}))
    other.load_state_dict(one.state_dict())
    layout, time = Layout((8,)), torch.tensor([0.3])
    data, points = torch.randn(2, 8, 3).unbind(0)
    assert not torch.allclose(one(data, points, time, layout).velocity, other(data, points, time, layout).velocity, atol=1e-4)


def test_the_objective_is_a_pure_function_of_seed_step_and_example() -> None:
    chains = [walk(20, seed=1), walk(30, seed=2)]
    objective = KanziObjective(seed=0, device=torch.device("cpu"), condition_dropout=0.5)
    both = objective.prepare(pack_traces(chains, example_ids=[4, 9]), 3)
    alone = objective.prepare(pack_traces(chains[1:], example_ids=[9]), 3)
    for name in ("data", "points", "velocity"):
        assert torch.allclose(getattr(both, name)[20:], getattr(alone, name), atol=1e-6)
    later = objective.prepare(pack_traces(chains, example_ids=[4, 9]), 4)
    assert not torch.allclose(later.data, both.data, atol=0.1) and not torch.equal(later.time, both.time)
    # x_t = t x_1 + (1 - t) x_0, and the target is the derivative of that
    at = both.time[both.layout.segment][:, None]
    assert torch.allclose(both.points + (1 - at) * both.velocity, both.data, atol=1e-5)
    # a rotation: distances stay, and the mean
    steps = np.linalg.norm(np.diff(both.data[:20].numpy(), axis=0), axis=1)
    assert np.allclose(steps, 0.38, atol=1e-4)
    still = KanziObjective(seed=0, device=torch.device("cpu"), rotate=False).prepare(pack_traces(chains), 0)
    assert torch.equal(still.data, pack_traces(chains).points)


def test_the_loss_is_the_squared_error_of_the_velocity() -> None:
    model, objective = built(), KanziObjective(seed=0, device=torch.device("cpu"))
    prepared = objective.prepare(pack_traces([walk(20)]), 0)
    terms = objective.loss(model, prepared)
    found = model(prepared.data, prepared.points, prepared.time, prepared.layout).velocity
    assert torch.allclose(terms.total, ((found - prepared.velocity) ** 2).sum() / 3, rtol=1e-5)
    assert terms.counts["velocity_error"] == prepared.num_tokens == 20
    terms.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_token_text_is_that_of_the_tokens_and_what_is_no_token_is_refused() -> None:
    one = tokenizer()
    assert one.to_text([599, 358]) == "<K599> <K358>"
    assert one.tokenize(walk(6)) == one.to_text(one.encode([walk(6)])[0])
    with pytest.raises(FormatError, match="found '1000' in chain 1, expected 0 to 999"):
        one.decode([[1000]])
    with pytest.raises(FormatError, match="chain 2 has none"):
        one.decode([[1], []])
    with pytest.raises(FormatError, match="residue 2 has no C-alpha"):
        one.encode([np.array([[0, 0, 0], [np.nan, 0, 0]])])


GPT = {
    **{f"gpt.blocks.{i}.attn.to_qkv.{leaf}": shape for i in range(3) for leaf, shape in (("weight", (768, 256)), ("bias", (768,)))},
    **{f"gpt.blocks.{i}.attn.to_out.{leaf}": shape for i in range(3) for leaf, shape in (("weight", (256, 256)), ("bias", (256,)))},
    **{f"gpt.blocks.{i}.mlp.fc1.{leaf}": shape for i in range(3) for leaf, shape in (("weight", (1024, 256)), ("bias", (1024,)))},
    **{f"gpt.blocks.{i}.mlp.fc2.{leaf}": shape for i in range(3) for leaf, shape in (("weight", (256, 1024)), ("bias", (256,)))},
    "gpt.embed.weight": (1000, 256),
    "gpt.norm.weight": (256,),
    "gpt.norm.bias": (256,),
    "gpt.head.bias": (1000,),
}
"""The parameters of a prior on tokens of 3 layers and width 256, its head tied to its embedding."""


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_the_published_shape_has_the_published_number_of_parameters() -> None:
    """44,117,745 in all with the prior; 44,374,180 numbers in 178 tensors with buffers and the tied copy of the prior's table."""
    with torch.device("meta"):
        model = KanziSettings().build("reference")
    own = sum(p.numel() for p in model.parameters())
    assert own == 41_494_025 and own + count(GPT) == 44_117_745
    published = to_published(model.state_dict(), KanziSettings())
    prior = GPT | {"gpt.head.weight": (1000, 256)} | {f"gpt.blocks.{i}.attn.pos_embed.inv_freq": (16,) for i in range(3)}
    assert len(published) + len(prior) == 178
    assert sum(value.numel() for value in published.values()) + count(prior) == 44_374_180


def written(path: Path, model: Kanzi, settings: KanziSettings, **changes: torch.Tensor | None) -> Path:
    """A file in the published layout, with a prior, a config and an optimizer's state beside the weights."""
    tensors = to_published(model.state_dict(), settings)
    tensors |= {name: torch.zeros(shape[:1]) for name, shape in GPT.items()}
    for name, value in changes.items():
        tensors.pop(name) if value is None else tensors.update({name: value})
    values = published_values(settings)
    torch.save({"model": tensors, "model_cfg": values, "it": 100, "optimizer": {"state": {}}}, path)
    return path


def test_a_file_in_the_published_layout_gives_the_same_tokens_and_samples(tmp_path: Path) -> None:
    model = built()
    settings, weights = read_kanzi(written(tmp_path / "cleaned_model.pt", model, SMALL))
    assert settings == KanziSettings(**{**vars(SMALL), "dropout": 0.1})
    other = settings.build("bucketed").eval()
    other.load_state_dict(weights)
    chain = walk(50)
    tokens = tokenizer(model).encode([chain])
    assert tokenizer(other).encode([chain]) == tokens
    assert np.array_equal(tokenizer(other).decode(tokens)[0], tokenizer(model).decode(tokens)[0])


def test_published_names_are_those_of_the_release_and_no_two_are_alike() -> None:
    names = [published_name(name) for name in built().state_dict()]
    assert len(set(names)) == len(names)
    expected = {
        "quantize.project_in.weight", "pair_embedder.embed.weight", "pair_embedder.pos_embed.weight", "pair_embedder.mlp.fc2.bias",
        "pair_embedder.ln.weight", "up.0.weight", "up.3.bias", "encoder.blocks.1.attn.to_qkv.bias", "encoder.blocks.0.pair_ln.weight",
        "encoder.blocks.0.proj_pair_bias.weight", "net.up.linear.weight", "net.up.adaLN_modulation.1.bias", "net.cond_embed",
        "net.blocks.1.attn.to_out.weight", "net.blocks.1.adaLN_modulation.1.weight", "net.time_embedder.mlp.2.weight",
        "net.final.linear.bias", "net.final.adaLN_modulation.1.weight",
    }  # fmt: skip
    assert expected <= set(names)


def test_a_file_that_is_none_or_not_whole_is_refused(tmp_path: Path) -> None:
    model = built()
    lacking = written(tmp_path / "lacking.pt", model, SMALL, **{"net.final.linear.bias": None})
    with pytest.raises(CheckpointError, match=r"no tensor 'net\.final\.linear\.bias'; expected a checkpoint of Kanzi"):
        read_kanzi(lacking)
    misshapen = written(tmp_path / "misshapen.pt", model, SMALL, **{"up.2.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=r"'up\.2\.weight' has the shape \(3, 3\), expected \(16, 16\)"):
        read_kanzi(misshapen)
    spare = written(tmp_path / "spare.pt", model, SMALL, **{"net.skip.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"found 'net\.skip\.weight', which this model does not have"):
        read_kanzi(spare)
    bins = written(tmp_path / "bins.pt", model, SMALL, **{"pair_embedder.bins": torch.linspace(0, 4, 99)})
    with pytest.raises(CheckpointError, match="other distance buckets"):
        read_kanzi(bins)
    torch.save({"state": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no tensors by name under 'model'"):
        read_kanzi(tmp_path / "other.pt")


def test_a_tiny_model_learns_two_chains() -> None:
    torch.manual_seed(0)
    settings = KanziSettings(**{**vars(SMALL), "decoder_size": 48, "code_positions": "restarted"})
    model, chains = settings.build("bucketed"), [walk(24, seed=1), walk(20, seed=2)]
    objective = KanziObjective(seed=0, device=torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
    losses = []
    for step in range(80):
        prepared = objective.prepare(pack_traces(chains * 4), step)
        loss = objective.loss(model, prepared).total / prepared.num_tokens
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5]), losses


def test_impossible_shapes_are_refused() -> None:
    for wrong, words in (
        ({"window": 0}, "window: found 0, expected 1 or more"),
        ({"levels": ()}, "levels: found"),
        ({"encoder_heads": 3}, "hidden_size: found 256 with 3 heads"),
        ({"dropout": 1.0}, "dropout: found 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            KanziSettings(**wrong)  # type: ignore[arg-type]
