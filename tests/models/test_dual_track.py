"""The dual-track model: sizes, the batch's innocence, a noise level for each track, and cross-attention that starts at nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from protlig_dd.errors import ConfigError
from protlig_dd.models.dual_track import DualTrack, DualTrackSettings
from protlig_dd.nn.flops import linear_flops
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackBatch, TrackSet, pack
from protlig_dd.training.sharded import blocks_of

TRACKS: TrackSet = {"protein": ProteinTrack(add_ends=False).build("protein"), "ligand": LigandTrack(add_ends=False).build("ligand")}
THREE: TrackSet = {**TRACKS, "pocket": ProteinTrack(add_ends=False).build("pocket")}
SMALL = DualTrackSettings(hidden_size=16, num_heads=2, num_blocks=2, conditioning_size=6, mlp_ratio=2.0, conv_width={"protein": 3})
PAIRS = [("MKTLLV", "CCO"), ("A", "c1ccccc1"), ("GGSDEFHIK", ""), ("", "CNC"), ("WYC", "O")]
Output = dict[str, list[Tensor]]


def perturbed(settings: DualTrackSettings = SMALL, backend: str = "bucketed", tracks: TrackSet = TRACKS) -> DualTrack:
    """Return a model whose zero-initialised layers are not zero, in evaluation mode."""
    torch.manual_seed(0)
    model = settings.build(tracks, backend)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def batch_of(examples: list[tuple[str, ...]], tracks: TrackSet = TRACKS) -> TrackBatch:
    names = list(tracks)
    encoded = [{n: tracks[n].encode(s) for n, s in zip(names, example, strict=True) if s} for example in examples]
    return pack(encoded, tracks)


def levels(num: int, tracks: TrackSet = TRACKS) -> dict[str, Tensor]:
    return {name: torch.linspace(0.1, 2.0 + i, num) for i, name in enumerate(tracks)}


def split(logits: dict[str, Tensor], batch: TrackBatch) -> Output:
    return {name: list(x.split(list(batch.tracks[name].layout.lengths))) for name, x in logits.items()}


def outputs(model: DualTrack, examples: list[tuple[str, ...]], sigma: dict[str, Tensor], tracks: TrackSet = TRACKS) -> Output:
    """Return the logits of each example of each track."""
    batch = batch_of(examples, tracks)
    return split(model(batch, sigma), batch)


def assert_same(a: Output, b: Output, pairs: list[tuple[int, int]]) -> None:
    for name in a:
        for i, j in pairs:
            torch.testing.assert_close(a[name][i], b[name][j], atol=1e-5, rtol=1e-5)


def test_the_published_vocabularies_fit() -> None:
    """37 protein and 2,365 ligand rows; each block is 12 H^2 + 5 H + H I (I: feed-forward) and so on, as the formula says."""
    tracks = {
        "protein": ProteinTrack(num_rows=37, mask_id=36, add_ends=False).build("protein"),
        "ligand": LigandTrack(num_rows=2365).build("ligand"),
    }
    with torch.device("meta"):
        model = DualTrackSettings().build(tracks, "reference")
    assert {n: s.embedding.num_embeddings for n, s in model.stacks.items()} == {"protein": 37, "ligand": 2365}
    h, c, n = 768, 256, 8
    block = (4 * h * h + 2 * h) + (8 * h * h + 5 * h) + (4 * h * h + 2 * h) + 9 * h * (c + 1)
    stack = n * block + (256 * c + c + c * c + c) + h + 2 * h * (c + 1)
    rows = 37 + 2365
    assert sum(p.numel() for p in model.parameters()) == 2 * stack + rows * (2 * h + 1)


def test_settings_that_make_no_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes two tracks or more, found .*'protein'.*; use kind: dit for one"):
        SMALL.build({"protein": TRACKS["protein"]}, "reference")
    with pytest.raises(ConfigError, match="model.conv_width: found track 'proteins', expected one of protein, ligand"):
        replace(SMALL, conv_width={"proteins": 3}).build(TRACKS, "reference")


def test_a_fresh_model_says_nothing_and_its_blocks_do_nothing() -> None:
    model = SMALL.build(TRACKS, "bucketed")
    for rows in outputs(model, PAIRS, levels(5)).values():
        assert all(len(x) == 0 or x.abs().max() == 0 for x in rows)
    seen: list[Tensor] = []
    for block in blocks_of(model):
        block.register_forward_hook(lambda module, inputs, out: seen.append((out - inputs[0]).abs().max()))
    model(batch_of(PAIRS), levels(5))
    assert len(seen) == 4 and not any(seen)


def test_cross_attention_starts_at_nothing() -> None:
    """With fresh gates the tracks do not read each other, however the rest of the model is."""
    model = perturbed()
    for block in blocks_of(model):
        gates = block.modulation.weight.unflatten(0, (9, -1)), block.modulation.bias.unflatten(0, (9, -1))
        for gate in gates:
            gate.data[8] = 0
    a, b = (outputs(model, [("MKT", ligand)], levels(1))["protein"][0] for ligand in ("CCO", "c1ccccc1"))
    torch.testing.assert_close(a, b, atol=0, rtol=0)
    a, b = (outputs(perturbed(), [("MKT", ligand)], levels(1))["protein"][0] for ligand in ("CCO", "c1ccccc1"))
    assert (a - b).abs().max() > 1e-3


def test_without_cross_attention_the_tracks_are_strangers() -> None:
    model = perturbed(replace(SMALL, cross_attention=False))
    a, b = (outputs(model, [("MKT", ligand)], levels(1))["protein"][0] for ligand in ("CCO", "c1ccccc1"))
    torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("backend", ["bucketed", "padded", "per_sequence", "reference"])
def test_an_example_never_depends_on_the_batch(backend: str) -> None:
    model, sigma = perturbed(backend=backend), levels(5)
    together = outputs(model, PAIRS, sigma)
    for i, pair in enumerate(PAIRS):
        alone = outputs(model, [pair], {name: s[i : i + 1] for name, s in sigma.items()})
        assert_same(alone, together, [(0, i)])
    reordered = outputs(model, PAIRS[::-1], {name: s.flip(0) for name, s in sigma.items()})
    assert_same(reordered, together, [(4 - i, i) for i in range(5)])
    edited = outputs(
        model, [*PAIRS[:4], ("H" * 20, "CCCCCCCCCCC")], {name: s * torch.tensor([1, 1, 1, 1, 5.0]) for name, s in sigma.items()}
    )
    assert_same(edited, together, [(i, i) for i in range(4)])


def test_the_gradient_of_an_example_never_depends_on_the_batch() -> None:
    model, sigma = perturbed(), levels(5)

    def gradient(examples: list[tuple[str, str]], i: int, of: int) -> Tensor:
        found = outputs(model, examples, {name: s[i : i + len(examples)] for name, s in sigma.items()})
        loss = found["protein"][of].square().sum() + found["ligand"][of].square().sum()
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        return flat / flat.abs().max()

    torch.testing.assert_close(gradient(PAIRS, 0, 1), gradient(PAIRS[1:2], 1, 0), atol=1e-6, rtol=1e-4)
    edited = [("HHH", "NN"), PAIRS[1], ("W", "O"), ("", ""), ("", "C")]
    torch.testing.assert_close(gradient(PAIRS, 0, 1), gradient(edited, 0, 1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("track", "other"), [("protein", "ligand"), ("ligand", "protein")])
def test_every_track_is_told_its_own_noise_level(track: str, other: str) -> None:
    """The level of a track changes its own logits, and the other track's through what that one reads."""
    model, sigma = perturbed(), levels(1)
    changed = {**sigma, track: sigma[track] + 1}
    a, b = (outputs(model, [("MKTLLV", "CCO")], s) for s in (sigma, changed))
    assert (a[track][0] - b[track][0]).abs().max() > 1e-2
    assert (a[other][0] - b[other][0]).abs().max() > 1e-5
    alone = replace(SMALL, cross_attention=False)
    a, b = (outputs(perturbed(alone), [("MKTLLV", "CCO")], s) for s in (sigma, changed))
    torch.testing.assert_close(a[other][0], b[other][0], atol=0, rtol=0)


def test_an_absent_track_and_one_that_was_never_there_are_the_same() -> None:
    """The other track's noise level cannot leak in when the track is absent."""
    model, sigma = perturbed(), levels(1)
    a = outputs(model, [("MKTLLV", "")], sigma)
    b = outputs(model, [("MKTLLV", "")], {**sigma, "ligand": sigma["ligand"] + 7})
    torch.testing.assert_close(a["protein"][0], b["protein"][0], atol=0, rtol=0)
    assert len(a["ligand"][0]) == 0
    assert (outputs(model, [("MKTLLV", "C")], sigma)["protein"][0] - a["protein"][0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "at",
    [
        {"protein": [0, 5, 6, 18], "ligand": [2, 3]},
        {"protein": [], "ligand": [0, 1, 13]},
        {"ligand": [4]},
        {"protein": [18, 2], "ligand": list(range(15))},
        {"protein": [], "ligand": []},
    ],
    ids=["some", "one track clean", "one track unnamed", "unsorted and all", "none"],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_asking_for_positions_is_indexing(at: dict[str, list[int]], checkpointing: bool) -> None:
    settings = replace(SMALL, activation_checkpointing=checkpointing, dropout=0.0)
    model = perturbed(settings).train(checkpointing)
    batch, sigma = batch_of(PAIRS), levels(5)
    index = {name: torch.tensor(rows, dtype=torch.int64) for name, rows in at.items()}
    everything = model(batch, sigma)
    full = {name: x[index[name]] if name in index else x for name, x in everything.items()}
    narrow = model(batch, sigma, at=index)
    parameters, gradients = list(model.parameters()), []
    for found in (full, narrow):
        loss = sum((x.square().sum() for x in found.values()), torch.zeros(()))
        gradients.append(torch.autograd.grad(loss, parameters))
    for name in full:
        torch.testing.assert_close(narrow[name], full[name], atol=1e-5, rtol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_every_parameter() -> None:
    model = perturbed(replace(SMALL, conditions={"affinity_bin": 3}))
    batch = replace(batch_of(PAIRS), conditions={"affinity_bin": torch.tensor([0, 1, 2, -1, 0])})
    sum(x.square().sum() for x in model(batch, levels(5)).values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # what the last blocks say is read by their own heads only, so all of it counts; nothing may be left out
    assert not silent


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = perturbed(replace(SMALL, activation_checkpointing=checkpointing, dropout=0.0)).train()
        sum(x.square().sum() for x in model(batch_of(PAIRS), levels(5)).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_with_three_tracks_the_context_is_all_others_one_behind_the_other() -> None:
    """Against a loop over examples that concatenates by hand."""
    model, sigma = perturbed(tracks=THREE), levels(3, THREE)
    examples = [("MKT", "CCO", "HH"), ("A", "", "WYC"), ("GG", "CN", "")]
    found = outputs(model, examples, sigma, THREE)
    for i, example in enumerate(examples):
        expected = by_hand(model, batch_of([example], THREE), {name: s[i : i + 1] for name, s in sigma.items()})
        for name in THREE:
            torch.testing.assert_close(found[name][i], expected[name], atol=1e-5, rtol=1e-5)


def by_hand(model: DualTrack, batch: TrackBatch, sigma: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the logits of one example: every layer written out, with contexts concatenated in the order of the tracks."""
    from protlig_dd.nn.packed import Context
    from protlig_dd.nn.rotary import rotation
    from protlig_dd.tokens.tracks import Layout

    layouts = {name: track.layout for name, track in batch.tracks.items()}
    hidden, level = {}, {}
    for name, stack in model.stacks.items():
        level[name] = stack.noise_level(sigma[name])
        hidden[name] = stack.embedding(batch.tracks[name].tokens)
        if stack.convolution is not None:
            hidden[name] = stack.convolution(hidden[name], layouts[name])
    for i in range(model.num_blocks):
        before = dict(hidden)
        for name, stack in model.stacks.items():
            context = torch.cat([before[other] for other in model.stacks if other != name])
            by = rotation(layouts[name].position, model.head_size)
            context = Context(context, Layout((len(context),)))
            hidden[name] = stack.blocks[i](before[name], layouts[name], by, level[name], context)
    return {name: stack.head(hidden[name], layouts[name], level[name]) for name, stack in model.stacks.items()}


def test_three_tracks_never_mix_examples() -> None:
    model, sigma = perturbed(tracks=THREE), levels(2, THREE)
    a, b = (outputs(model, [("MKT", "CCO", "HH"), other], sigma, THREE) for other in (("A", "C", "W"), ("GGG", "", "CCC")))
    assert_same(a, b, [(0, 0)])


@pytest.mark.parametrize("cross", [True, False])
def test_flops_are_torchs_own_count(cross: bool) -> None:
    """With equal lengths, plus the per-example products that the formula leaves out."""
    model = perturbed(replace(SMALL, cross_attention=cross), "reference")
    examples = [("ACDEFGHI", "CCO")] * 3
    batch = batch_of(examples)
    with FlopCounterMode(display=False) as counter:
        model(batch, levels(3))
    per_example = linear_flops(model) - linear_flops(model, per_example=("modulation", "noise_level"))
    assert model.forward_flops(batch) + 3 * per_example == counter.get_total_flops()


def test_each_block_of_each_track_is_a_unit_of_sharding() -> None:
    model = SMALL.build(TRACKS, "reference")
    assert len(blocks_of(model)) == 4


ALIGNED: TrackSet = {**TRACKS, "structure": StructureTrack(alphabet="3di", add_ends=False).build("structure")}
TRIPLES = [("MKTLLV", "CCO", "DVVPAC"), ("AW", "c1ccccc1", "DV"), ("GGS", "", "VVD"), ("", "CNC", ""), ("WYC", "O", "")]


@pytest.mark.parametrize(("reads", "read"), [("protein", "structure"), ("structure", "protein")])
def test_aligned_tracks_read_each_other_by_position_and_others_do_not(reads: str, read: str) -> None:
    """With one block the context is embeddings alone, so its order can be seen only through the rotary angles."""
    one = replace(SMALL, num_blocks=1, conv_width=None)
    sigma = levels(1, ALIGNED)
    example = {"protein": "AWKV", "structure": "DVPC", "ligand": "CNO"}
    turned = {**example, read: example[read][::-1]}

    def logits(model: DualTrack, texts: dict[str, str]) -> Tensor:
        return outputs(model, [tuple(texts[n] for n in ALIGNED)], sigma, ALIGNED)[reads][0]

    model = perturbed(one, tracks=ALIGNED)
    assert (logits(model, turned) - logits(model, example)).abs().max() > 1e-3
    model.numbering = {name: name for name in ALIGNED}
    torch.testing.assert_close(logits(model, turned), logits(model, example), atol=1e-5, rtol=1e-5)


def test_the_ligand_reads_aligned_tracks_without_their_positions() -> None:
    model = perturbed(replace(SMALL, num_blocks=1, conv_width=None), tracks=ALIGNED)
    sigma = levels(1, ALIGNED)
    a = outputs(model, [("AWKV", "CNO", "DVPC")], sigma, ALIGNED)["ligand"][0]
    b = outputs(model, [("VKWA", "CNO", "PVDC")], sigma, ALIGNED)["ligand"][0]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_three_tracks_with_two_aligned_do_not_depend_on_the_batch_and_narrow() -> None:
    model = perturbed(tracks=ALIGNED)
    sigma = levels(5, ALIGNED)
    together = outputs(model, TRIPLES, sigma, ALIGNED)
    for i, example in enumerate(TRIPLES):
        alone = outputs(model, [example], {n: s[i : i + 1] for n, s in sigma.items()}, ALIGNED)
        assert_same({n: [x[0]] for n, x in alone.items()}, {n: [x[i]] for n, x in together.items()}, [(0, 0)])
    batch = batch_of(TRIPLES, ALIGNED)
    at = {"protein": torch.tensor([1, 4]), "structure": torch.tensor([0, 7]), "ligand": torch.tensor([3])}
    whole, narrow = model(batch, sigma), model(batch, sigma, at=at)
    for name, rows in at.items():
        torch.testing.assert_close(narrow[name], whole[name][rows], atol=1e-5, rtol=1e-5)
