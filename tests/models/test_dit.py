"""The single-track model: its size, what it may depend on, and the original SEDD's output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from protlig_dd.diffusion.parameterizations import Score
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.models.dit import DiT, DiTSettings
from protlig_dd.models.published.sedd_layout import from_sedd_names, read_sedd
from protlig_dd.nn.flops import linear_flops
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, pack
from protlig_dd.training.sharded import blocks_of

TRACKS = {"protein": ProteinTrack(num_rows=37, mask_id=36, add_ends=False).build("protein")}
SMALL = DiTSettings(hidden_size=16, num_heads=2, num_blocks=2, conditioning_size=6, mlp_ratio=2.0, conv_width=3)
SEQUENCES = ["MKTLLV", "A", "GGSDEFHIK", "WYC"]


def perturbed(settings: DiTSettings, backend: str = "bucketed") -> DiT:
    """Return a model whose zero-initialised layers are not zero, in evaluation mode."""
    torch.manual_seed(0)
    model = settings.build(TRACKS, backend)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def batch_of(sequences: list[str]) -> TrackBatch:
    return pack([{"protein": TRACKS["protein"].encode(s)} if s else {} for s in sequences], TRACKS)


def outputs(model: nn.Module, sequences: list[str], sigma: list[float], **options: object) -> list[Tensor]:
    """Return the logits of each example."""
    batch = batch_of(sequences)
    logits = model(batch, {"protein": torch.tensor(sigma)}, **options)["protein"]
    return list(logits.split(list(batch.tracks["protein"].layout.lengths)))


def test_protein_66m_has_exactly_its_parameters() -> None:
    settings = DiTSettings(head_bias=False, final_silu=False)
    with torch.device("meta"):
        model = settings.build(TRACKS, "reference")
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    assert counts == {
        "embedding": 28_416, "noise_level": 131_584, "conditions": 0, "given": 0, "blocks": 66_140_160, "head": 423_936,
    }  # fmt: skip
    assert sum(counts.values()) == 66_724_096


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        (DiTSettings(conditioning_size=128, head_bias=False), 37, 61_726_720),
        (DiTSettings(conditioning_size=512, head_bias=False), 37, 76_817_152),
        (DiTSettings(head_bias=False), 2365, 70_299_904),
        (DiTSettings(hidden_size=1024, num_heads=16, num_blocks=20, conditioning_size=512, head_bias=False), 37, 316_360_704),
    ],
)  # fmt: skip
def test_other_published_sizes(settings: DiTSettings, rows: int, expected: int) -> None:
    with torch.device("meta"):
        model = DiT(settings, "protein", rows, "reference")
    assert sum(p.numel() for p in model.parameters()) == expected


def test_settings_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size: found 18 with 2 heads, expected a multiple of 2 x num_heads"):
        DiTSettings(hidden_size=18, num_heads=2)
    two = {**TRACKS, "ligand": LigandTrack(add_ends=False).build("ligand")}
    with pytest.raises(ConfigError, match="'dit' takes one track, found .*'ligand', 'protein'.*; use kind: dual_track"):
        SMALL.build(two, "reference")


def test_a_fresh_model_says_nothing() -> None:
    for logits in outputs(SMALL.build(TRACKS, "bucketed"), SEQUENCES, [0.1, 1, 2, 3]):
        assert logits.abs().max() == 0


@pytest.mark.parametrize("backend", ["bucketed", "padded", "per_sequence", "reference"])
def test_an_example_never_depends_on_the_batch(backend: str) -> None:
    model, sigma = perturbed(SMALL, backend), [0.1, 1.0, 2.0, 0.5]
    together = outputs(model, SEQUENCES, sigma)
    for i, sequence in enumerate(SEQUENCES):
        torch.testing.assert_close(outputs(model, [sequence], sigma[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-5)
    reordered = outputs(model, SEQUENCES[::-1], sigma[::-1])[::-1]
    edited = outputs(model, [*SEQUENCES[:3], "HHHHHHHHHHHHHHHHHHH"], [*sigma[:3], 5.0])
    with_absent = outputs(model, ["", *SEQUENCES, ""], [9.0, *sigma, 9.0])[1:]
    for i in range(3):
        for other in (reordered, edited, with_absent):
            torch.testing.assert_close(other[i], together[i], atol=1e-5, rtol=1e-5)


def test_the_gradient_of_an_example_never_depends_on_the_batch() -> None:
    model = perturbed(SMALL)

    def gradient(sequences: list[str], i: int) -> Tensor:
        loss = outputs(model, sequences, [0.7] * len(sequences))[i].square().sum()
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        return flat / flat.abs().max()

    alone = gradient(SEQUENCES[2:3], 0)
    torch.testing.assert_close(gradient(SEQUENCES, 2), alone, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradient(["HHHH", "WW", SEQUENCES[2]], 2), alone, atol=1e-6, rtol=1e-4)


def test_sigma_is_read() -> None:
    model = perturbed(SMALL)
    a, b = (outputs(model, SEQUENCES, sigma) for sigma in ([0.1] * 4, [0.1, 0.1, 2.0, 0.1]))
    assert (a[2] - b[2]).abs().max() > 1e-2
    torch.testing.assert_close(a[0], b[0])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("at", [[0, 5, 6, 9], [9, 0, 6], list(range(19)), [16], []], ids=["some", "unsorted", "all", "one", "none"])
def test_asking_for_positions_is_indexing(at: list[int], checkpointing: bool) -> None:
    """Logits and gradients: the last block computes only what is asked for, and nothing else changes."""
    model = perturbed(replace(SMALL, activation_checkpointing=checkpointing, dropout=0.0)).train(checkpointing)
    batch, sigma = batch_of(SEQUENCES), {"protein": torch.tensor([0.1, 1.0, 2.0, 0.5])}
    index = torch.tensor(at, dtype=torch.int64)
    full = model(batch, sigma)["protein"][index]
    narrow = model(batch, sigma, at={"protein": index})["protein"]
    torch.testing.assert_close(narrow, full, atol=1e-5, rtol=1e-5)
    parameters = list(model.parameters())
    gradients = [torch.autograd.grad(x.square().sum(), parameters) for x in (full, narrow)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_every_parameter() -> None:
    model = perturbed(replace(SMALL, conditions={"affinity_bin": 3}))
    batch = replace(batch_of(SEQUENCES), conditions={"affinity_bin": torch.tensor([0, 1, 2, -1])})
    model(batch, {"protein": torch.rand(4)})["protein"].square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not silent


def test_a_fresh_model_learns_from_its_first_step_on() -> None:
    """Zero-initialised layers are no dead end: the head moves first, then everything behind it."""
    model = SMALL.build(TRACKS, "bucketed")
    batch, optimizer = batch_of(SEQUENCES), torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(batch, {"protein": torch.rand(4)})["protein"], batch.tracks["protein"].tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = perturbed(replace(SMALL, activation_checkpointing=checkpointing, dropout=0.0)).train()
        torch.cat(outputs(model, SEQUENCES, [0.5] * 4)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_flops_are_torchs_own_count() -> None:
    """With equal lengths, plus the per-example products that the formula leaves out."""
    model, sequences = perturbed(SMALL, "reference"), ["ACDEFGHI"] * 3
    with FlopCounterMode(display=False) as counter:
        outputs(model, sequences, [0.5] * 3)
    everything = linear_flops(model)
    per_example = everything - linear_flops(model, per_example=("modulation", "noise_level"))
    assert model.forward_flops(batch_of(sequences)) + 3 * per_example == counter.get_total_flops()


def test_each_block_is_a_unit_of_sharding() -> None:
    model = SMALL.build(TRACKS, "reference")
    assert blocks_of(model) == list(model.blocks)


def sedd_state(golden: np.lib.npyio.NpzFile) -> dict[str, Tensor]:
    """Return the original SEDD's weights under our names."""
    state = {n.removeprefix("state/"): torch.from_numpy(golden[n]) for n in golden.files if n.startswith("state/")}
    return from_sedd_names(state)


@pytest.mark.data
@pytest.mark.parametrize("backend", ["bucketed", "per_sequence", "reference"])
def test_the_original_sedd_says_the_same(backend: str, shared: Path) -> None:
    """Weights, inputs and log scores of Lou et al.'s transformer (12 rows, the last one the mask, scale_by_sigma)."""
    golden = np.load(shared / "goldens" / "sedd" / "goldens_model.npz")
    settings = DiTSettings(hidden_size=24, num_heads=3, num_blocks=2, conditioning_size=16, activation="gelu_tanh", head_bias=True)
    model = DiT(settings, "protein", 12, backend).eval()  # type: ignore[arg-type]
    model.load_state_dict(sedd_state(golden))
    assert sum(p.numel() for p in model.parameters()) == int(golden["n_params"])
    tokens, sigma = torch.from_numpy(golden["indices"]), torch.from_numpy(golden["sigma"])
    batch = pack([{"protein": row} for row in tokens.tolist()], TRACKS)
    logits = model(batch, {"protein": sigma})["protein"].unflatten(0, tokens.shape)
    score = Score(process=Absorbing(num_rows=12, emittable_ids=range(11), mask_id=11))
    log_score = score.log_score(logits, tokens, torch.exp(-sigma)[:, None].expand(tokens.shape)).detach()
    expected = torch.from_numpy(golden["log_score"])
    # SEDD also gives the mask's own row a value, which no formula reads; ours is -inf there unless the token is the mask.
    torch.testing.assert_close(log_score[..., :11], expected[..., :11], atol=1e-5, rtol=1e-5)
    is_mask = tokens == 11
    assert (log_score[is_mask][:, 11] == 0).all() and (expected[is_mask][:, 11] == 0).all()


def to_sedd_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in (
            ("vocab_embed.embedding", "embedding.weight"),
            ("output_layer.norm_final", "head.norm"),
            ("output_layer.linear", "head.linear"),
            ("output_layer.adaLN_modulation", "head.modulation"),
            ("sigma_map", "noise_level"),
            ("attn_qkv", "attention.qkv"),
            ("attn_out", "attention.out"),
            ("adaLN_modulation", "modulation"),
        ):
            if ours in name and theirs not in name:
                name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


class Live:
    """Something a pickled checkpoint may hold and that must not come alive."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


@pytest.mark.parametrize("bias", [True, False])
def test_a_sedd_checkpoint_is_read_without_running_it(bias: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(SMALL, conv_width=0, dropout=0.1, mlp_ratio=2.0, head_bias=bias, final_silu=bias)
    settings = replace(settings, activation="gelu_tanh" if bias else "gelu")
    model = perturbed(settings)
    state = to_sedd_names(model.state_dict()) | {"rotary_emb.inv_freq": torch.ones(4)}
    torch.save({"step": 3, "model_state_dict": state, "config": Live()}, tmp_path / "checkpoint.pth")
    found, track, weights = read_sedd(tmp_path / "checkpoint.pth")
    assert capsys.readouterr().out == ""
    assert found == settings and (track.num_rows, track.mask_id) == (37, 36)
    assert {n: t.tolist() for n, t in weights.items()} == {n: t.tolist() for n, t in model.state_dict().items()}


def test_what_is_no_sedd_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"a": torch.ones(2)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: no tensor for 'embedding.weight'"):
        read_sedd(tmp_path / "other.pth")
