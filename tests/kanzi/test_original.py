"""A file in the published layout computes what the original computes.

`tests/golden/kanzi.safetensors` holds random weights under the published names (rounded to half precision), a made chain of 80 residues, and what
the original's code gave for them on a CPU: rdilip/kanzi, `attention.py` of commit 19863d8, `models.py` and `fsq.py` of ce5ec13, under torch
2.13, with timm's feed-forward layer and, since its own rotary module was not among the sources at hand, that of ESM-2 (facebookresearch/esm,
commit e65dfd2). Its draws were replaced by the stored start and noise. "published" is the trainer's configuration, "other" has all that
`model_cfg` alone tells otherwise: normed queries, levels (8, 8, 8, 8), no window.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from protlig_dd.errors import CheckpointError
from protlig_dd.kanzi.batches import pack_traces
from protlig_dd.kanzi.experiment import open_autoencoder
from protlig_dd.kanzi.flow import FlowSampler
from protlig_dd.kanzi.model import Kanzi
from protlig_dd.kanzi.published import PUBLISHED_SAMPLER, read_kanzi
from protlig_dd.kanzi.tokenizer import KanziTokenizer, guided_velocity
from protlig_dd.kanzi.windowed import tiles_of
from protlig_dd.tokens.tracks import Layout
from tests.support.folding_world import published_values

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "kanzi.safetensors")
WEIGHTS = {name.removeprefix("weights/"): value for name, value in GOLDEN.items() if name.startswith("weights/")}
SHAPE = {"n_channels_decoder": 16, "n_channels_encoder": 8, "n_layers_encoder": 2, "n_layers_decoder": 2, "n_heads": 2,
         "mlp_factor": 4, "n_channels_pair": 4, "encoder_type": "xformer", "sigma": 0.0}  # fmt: skip
CASES = {
    "published": SHAPE | {"use_qknorm": False, "levels": (8, 5, 5, 5), "window_size": 16},
    "other": SHAPE | {"use_qknorm": True},  # levels and window are the original's defaults
}
SHORT = Layout((24,))
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(case: str, tmp_path_factory: pytest.TempPathFactory) -> Kanzi:
    path = tmp_path_factory.mktemp(case) / "cleaned_model.pt"
    torch.save({"model": WEIGHTS, "model_cfg": CASES[case]}, path)
    return open_autoencoder(path, device="cpu").model


def test_the_golden_tokens_are_many_and_its_samples_differ() -> None:
    for case in CASES:
        assert len(GOLDEN[f"{case}/tokens"].unique()) > 15
    assert not torch.equal(GOLDEN["published/tokens"], GOLDEN["other/tokens"])
    assert not torch.allclose(GOLDEN["published/sample_noise"], GOLDEN["published/sample_guided"], atol=0.1)


def test_pair_vectors_are_the_originals(model: Kanzi) -> None:
    """Those of residue 70 with all 80, so that distances and places beyond the last bucket are met."""
    batch = pack_traces([GOLDEN["chain"].numpy()])
    tiles = tiles_of(batch.layout, 80)
    table, entry = model.encoder.pairs(batch.points, tiles)
    assert torch.allclose(table[entry[0, 70, 80:160]], GOLDEN["pairs"], **CLOSE)


def test_hidden_states_tokens_and_quantised_vectors_are_the_originals(model: Kanzi, case: str) -> None:
    batch = pack_traces([GOLDEN["chain"].numpy()])
    assert torch.allclose(model.encoder(batch.points, batch.layout), GOLDEN[f"{case}/hidden"], **CLOSE)
    codes, tokens = model.quantise(batch.points, batch.layout)
    assert torch.equal(tokens.int(), GOLDEN[f"{case}/tokens"])
    assert torch.allclose(codes[:24], GOLDEN[f"{case}/quantised"], **CLOSE)
    assert KanziTokenizer(model).encode([GOLDEN["chain"].numpy()]) == [GOLDEN[f"{case}/tokens"].tolist()]


@pytest.mark.parametrize("time", [0.0, 0.4, 0.95])
def test_velocities_are_the_originals(model: Kanzi, case: str, time: float) -> None:
    found = model.decoder(GOLDEN["start"], torch.tensor([time]), golden_codes(model, case), SHORT)
    assert torch.allclose(found, GOLDEN[f"{case}/velocity_{time}"], **CLOSE)


@pytest.mark.parametrize(("name", "options"), [("no_noise", {"noise_weight": 0.0}), ("noise", {}), ("guided", {"guidance": 2.0})])
def test_samples_from_given_noise_are_the_originals(model: Kanzi, case: str, name: str, options: dict[str, float]) -> None:
    """Eight Euler steps; weights of noise and score are the original's defaults unless told otherwise."""
    sampler = FlowSampler(method="euler", num_steps=8, **options)  # type: ignore[arg-type]
    velocity = guided_velocity(model.decoder, golden_codes(model, case), SHORT, sampler.guidance)
    found = sampler.integrate(velocity, GOLDEN["start"], lambda step: GOLDEN["noise"][step])
    assert torch.allclose(found, GOLDEN[f"{case}/sample_{name}"], atol=5e-5, rtol=1e-5)


def golden_codes(model: Kanzi, case: str) -> Tensor:
    return model.quantiser.embed(GOLDEN[f"{case}/tokens"][:24])


def test_a_published_file_is_sampled_as_the_original_samples(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "model_cfg": CASES["published"]}, tmp_path / "cleaned_model.pt")
    sampler = open_autoencoder(tmp_path / "cleaned_model.pt", device="cpu").tokenizer().sampler
    assert sampler == PUBLISHED_SAMPLER
    assert (sampler.method, sampler.num_steps, sampler.noise_weight, sampler.guidance) == ("euler", 100, 0.45, 1.0)


def test_what_no_tensor_tells_is_read_from_the_files_configuration(tmp_path: Path) -> None:
    def shape(values: dict[str, object] | None):  # type: ignore[no-untyped-def]
        content = {"model": WEIGHTS} | ({} if values is None else {"model_cfg": values})
        torch.save(content, tmp_path / "model.pt")
        settings, _ = read_kanzi(tmp_path / "model.pt")
        return settings.window, settings.levels, settings.normed_queries

    assert shape(CASES["published"]) == (16, (8, 5, 5, 5), False)
    assert shape(CASES["other"]) == (10_000, (8, 8, 8, 8), True)
    assert shape(None) == (16, (8, 5, 5, 5), False), "a file that says nothing is taken to be the published one"
    torch.save({"model": WEIGHTS, "model_cfg": CASES["published"]}, tmp_path / "model.pt")
    assert published_values(read_kanzi(tmp_path / "model.pt")[0]).items() <= CASES["published"].items()
    for name, value, words in (
        ("levels", (8, 5, 5), r"model_cfg\.levels: found 3 numbers, expected 4"),
        ("levels", "8555", r"model_cfg\.levels: found '8555', expected whole numbers"),
        ("window_size", "wide", r"model_cfg\.window_size: found 'wide', expected a whole number"),
        ("window_size", 0, "window: found 0, expected 1 or more"),
        ("conditioning_type", "xatt", r"model_cfg\.conditioning_type: found 'xatt', expected 'cat'"),
    ):
        with pytest.raises(CheckpointError, match=words):
            shape(CASES["published"] | {name: value})


def test_one_modulation_that_all_blocks_share_is_read_from_the_blocks(tmp_path: Path) -> None:
    shared = {f"net.shared_adaLN_modulation.1.{leaf}": torch.zeros(96) for leaf in ("weight", "bias")}
    torch.save({"model": WEIGHTS | shared, "model_cfg": CASES["published"]}, tmp_path / "model.pt")
    _, weights = read_kanzi(tmp_path / "model.pt")
    expected = WEIGHTS["net.blocks.1.adaLN_modulation.1.weight"].float()
    assert torch.equal(weights["decoder.blocks.1.modulation.weight"], expected)
