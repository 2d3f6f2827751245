"""The encoder against the published function: goldens of DPLM, DPLM-2 and DPLM-2 Bit, and stock `EsmForMaskedLM` files made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from protlig_dd.errors import ConfigError
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.published.layouts import to_published
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.tokens.settings import LigandTrack
from protlig_dd.tokens.tracks import TrackSet
from tests.support.encoders import PAIRED, PROTEINS, SMALL, TRACKS, batch_of, random_model


def unpadded(ids: np.ndarray) -> list[list[int]]:
    return [[int(i) for i in row if i != 1] for row in ids]


def opened(folder: Path) -> tuple[Encoder, TrackSet]:
    found = read_pretrained(folder)
    tracks = {name: track.build(name) for name, track in found.tracks.items()}
    model = found.model.build(tracks, "bucketed")
    model.load_state_dict(found.weights)
    return model.eval(), tracks


def valid(values: np.ndarray, ids: np.ndarray) -> Tensor:
    return torch.from_numpy(values[ids != 1])


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "goldens/dplm"


@pytest.mark.data
def test_dplm_gives_the_published_logits(goldens: Path) -> None:
    golden = np.load(goldens / "forward.npz")
    model, _ = opened(goldens / "hf_dplm_tiny")
    batch = batch_of(protein=unpadded(golden["input_ids"]))
    with torch.no_grad():
        logits, hidden = model(batch)["protein"], model.embed(batch)["protein"]
    assert torch.allclose(logits, valid(golden["logits"], golden["input_ids"]), atol=1e-5, rtol=0)
    assert torch.allclose(hidden, valid(golden["last_hidden_state"], golden["input_ids"]), atol=1e-5, rtol=0)


@pytest.mark.data
@pytest.mark.parametrize("name", ["lightning_run/checkpoints/last.ckpt", "lightning_run/checkpoints/plain_hparams.ckpt"])
def test_a_lightning_checkpoint_is_the_same_model(goldens: Path, name: str) -> None:
    folder, file = read_pretrained(goldens / "hf_dplm_tiny"), read_pretrained(goldens / name)
    assert file.model == folder.model
    assert {n: t.tolist() for n, t in file.weights.items()} == {n: t.tolist() for n, t in folder.weights.items()}


@pytest.mark.data
def test_a_checkpoint_of_real_lightning_gives_its_logits(goldens: Path) -> None:
    golden = np.load(goldens / "lightning_run_real/logits.npz")
    model, _ = opened(goldens / "lightning_run_real/checkpoints/last.ckpt")
    ids = golden["input_ids"]
    with torch.no_grad():
        logits = model(batch_of(protein=unpadded(ids)))["protein"]
    assert torch.allclose(logits, valid(golden["logits"], ids), atol=1e-5, rtol=0)


@pytest.mark.data
def test_dplm_gives_the_published_gradients(goldens: Path) -> None:
    forward, golden = np.load(goldens / "forward.npz"), np.load(goldens / "grad.npz")
    model, _ = opened(goldens / "hf_dplm_tiny")
    labels = valid(golden["labels"], forward["input_ids"])
    logits = model(batch_of(protein=unpadded(forward["input_ids"])))["protein"]
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(float(golden["ce"]), abs=1e-6)
    gradients = to_published({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    compared = [name for name in golden if name in gradients]
    assert len(compared) == len(gradients)
    for name in compared:
        assert torch.allclose(gradients[name], torch.from_numpy(golden[name]), atol=1e-5, rtol=1e-4), name


def halves(ids: np.ndarray) -> dict[str, list[list[int]]]:
    middle = ids.shape[1] // 2
    return {"structure": unpadded(ids[:, :middle]), "protein": unpadded(ids[:, middle:])}


@pytest.mark.data
@pytest.mark.parametrize("case", ["logits", "logits_single_modality"])
def test_dplm2_gives_the_published_logits(goldens: Path, case: str) -> None:
    golden = np.load(goldens / "dplm2/forward.npz")
    model, _ = opened(goldens / "dplm2/hf_dplm2_tiny")
    ids, middle = golden["input_ids"], golden["input_ids"].shape[1] // 2
    apart = tuple(golden["single_modality"].tolist()) if case == "logits_single_modality" else None
    with torch.no_grad():
        logits = model(batch_of(apart, **halves(ids)))
    for name, part in (("structure", slice(0, middle)), ("protein", slice(middle, None))):
        expected = valid(golden[case][:, part], ids[:, part])
        assert torch.allclose(logits[name], expected, atol=1e-5, rtol=0), name


@pytest.mark.data
@pytest.mark.parametrize(("name", "case"), [("structure", "struct_only"), ("protein", "aa_only")])
def test_dplm2_with_one_track_gives_the_published_logits(goldens: Path, name: str, case: str) -> None:
    golden = np.load(goldens / "dplm2/forward.npz")
    model, _ = opened(goldens / "dplm2/hf_dplm2_tiny")
    ids = golden[f"{case}_ids"]
    empty: list[list[int]] = [[] for _ in ids]
    tracks = {"structure": empty, "protein": empty} | {name: unpadded(ids)}
    with torch.no_grad():
        logits = model(batch_of(**tracks))[name]
    assert torch.allclose(logits, valid(golden[f"logits_{case}"], ids), atol=1e-5, rtol=0)


@pytest.mark.data
def test_the_bit_model_gives_the_published_logits(goldens: Path) -> None:
    golden = np.load(goldens / "dplm2/bit_forward.npz")
    model, _ = opened(goldens / "dplm2/hf_dplm2_bit_tiny")
    ids, middle = golden["input_ids"], golden["input_ids"].shape[1] // 2
    batch = batch_of(**halves(ids))
    assert model.bit_head is not None
    with torch.no_grad():
        pairs = model.bit_head.bit_logits(model.embed(batch)["structure"]).flatten(1)
        protein = model(batch)["protein"]
    assert torch.allclose(pairs, valid(golden["struct_logits"], ids[:, :middle]), atol=1e-5, rtol=0)
    assert torch.allclose(protein, valid(golden["aatype_logits"], ids[:, middle:]), atol=1e-5, rtol=0)


def test_one_table_of_ids_is_needed() -> None:
    with pytest.raises(ConfigError, match="tracks.protein.beside"):
        SMALL.build({**PAIRED, "protein": TRACKS["protein"]}, "reference")
    with pytest.raises(ConfigError, match="needs a track named protein"):
        SMALL.build({"ligand": LigandTrack().build("ligand")}, "reference")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (EncoderSettings(), 7_512_474),
        (EncoderSettings(hidden_size=480, num_heads=20, num_blocks=12), 33_501_394),
        (EncoderSettings(hidden_size=640, num_heads=20, num_blocks=30), 148_140_154),
        (EncoderSettings(hidden_size=1280, num_heads=20, num_blocks=33), 651_043_254),
        (EncoderSettings(hidden_size=2560, num_heads=40, num_blocks=36), 2_839_005_634),
    ],
)
def test_the_published_sizes(settings: EncoderSettings, expected: int) -> None:
    """The counts of Hugging Face's ESM-2, less the contact head's weights and bias, which no loss reaches."""
    contact_head = settings.num_blocks * settings.num_heads + 1
    with torch.device("meta"):
        model = settings.build(TRACKS, "reference")
    assert sum(p.numel() for p in model.parameters()) == expected - contact_head


CODES = [[33, 36, 40, 56, 37, 34], [33, 56, 56, 34], [33, 41, 42, 43, 44, 56, 34]]


@torch.no_grad()
def test_nothing_depends_on_what_else_is_in_the_batch() -> None:
    model = random_model(PAIRED)
    whole = model(batch_of(structure=CODES, protein=PROTEINS))
    for i, (codes, protein) in enumerate(zip(CODES, PROTEINS, strict=True)):
        alone = model(batch_of(structure=[codes], protein=[protein]))
        for name, rows in (("structure", CODES), ("protein", PROTEINS)):
            start = sum(map(len, rows[:i]))
            assert torch.allclose(whole[name][start : start + len(rows[i])], alone[name], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("apart", [None, (True, False, True)])
def test_logits_at_some_positions_are_those_of_all(apart: tuple[bool, ...] | None) -> None:
    model = random_model(PAIRED)
    batch = batch_of(apart, structure=CODES, protein=PROTEINS)
    at = {"structure": torch.tensor([3, 7]), "protein": torch.tensor([8, 3])}
    whole, some = model(batch), model(batch, at=at)
    for name, index in at.items():
        assert torch.allclose(some[name], whole[name][index], atol=1e-5), name


@torch.no_grad()
def test_tracks_that_are_apart_do_not_see_each_other() -> None:
    model = random_model(PAIRED, token_dropout=False)
    changed = [[33, 36, 36, 36, 36, 34], *CODES[1:]]
    for apart, same in (((True, True, True), True), (None, False), ((False, True, True), False)):
        before = model(batch_of(apart, structure=CODES, protein=PROTEINS))["protein"]
        after = model(batch_of(apart, structure=changed, protein=PROTEINS))["protein"]
        assert torch.allclose(before, after, atol=1e-6) is same, apart


def test_flops_are_those_that_torch_counts() -> None:
    model = random_model(PAIRED, backend="reference")
    batch = batch_of(structure=[CODES[0]], protein=[PROTEINS[0]])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    assert model.forward_flops(batch) == counter.get_total_flops()
