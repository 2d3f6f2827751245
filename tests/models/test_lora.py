"""Adapters: they change nothing at first, are trained alone with embeddings and heads, and merge into a plain model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from protlig_dd.errors import CheckpointError, MissingDependencyError
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.lora import LoraSettings
from protlig_dd.models.transfer import initialise_from
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.families.tokens import export_run
from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import train_experiment
from tests.support.encoders import PROTEINS, TRACKS, batch_of, random_model

pytest.importorskip("peft", reason="adapters come with protlig_dd[hf]")
ADAPTERS = LoraSettings(rank=2, dropout=0.0)
SHAPE = ("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=2", "train.tokens_per_batch=256")
STEPS = ("train.steps=5", "train.checkpoint_every=5", "train.validate_every=5", "train.optim.ema_decay=0")


def adapted() -> Encoder:
    torch.manual_seed(3)
    return EncoderSettings(hidden_size=16, num_heads=2, num_blocks=2, lora=ADAPTERS).build(TRACKS, "bucketed").eval()


def started() -> tuple[Encoder, Encoder]:
    """A model, and one with adapters that starts from it."""
    source, model = random_model(TRACKS), adapted()
    initialise_from(model, TRACKS, source.state_dict(), TRACKS, "the source")
    return source, model


def test_new_adapters_change_nothing() -> None:
    source, model = started()
    batch = batch_of(protein=PROTEINS)
    with torch.no_grad():
        assert torch.equal(model(batch)["protein"], source(batch)["protein"])


def test_merging_gives_the_logits_of_the_adapters() -> None:
    source, model = started()
    for name, parameter in model.named_parameters():
        parameter.data += 0.2 * torch.randn_like(parameter) * (".lora_" in name)
    plain = random_model(TRACKS)
    plain.load_state_dict(ADAPTERS.merged(model.state_dict()))
    batch = batch_of(protein=PROTEINS)
    with torch.no_grad():
        expected = model(batch)["protein"]
        assert torch.allclose(plain(batch)["protein"], expected, atol=1e-5)
        assert not torch.allclose(source(batch)["protein"], expected, atol=1e-1)


def test_only_adapters_embeddings_and_heads_are_trained() -> None:
    trained = {name.split(".")[0] if "lora" not in name else "lora" for name, p in adapted().named_parameters() if p.requires_grad}
    assert trained == {"lora", "embedding", "head"}


def test_the_documented_number_of_parameters() -> None:
    settings = EncoderSettings(hidden_size=1280, num_heads=20, num_blocks=33, lora=LoraSettings())
    with torch.device("meta"):
        model = settings.build(TRACKS, "reference")
    assert sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name) == 10_813_440
    assert "10,813,440" in (LoraSettings.__doc__ or "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A small run, and a run with adapters that started from it."""
    folder = tmp_path_factory.mktemp("lora")
    source = torch.Generator().manual_seed(0)
    letters = "ACDEFGHIKLMNPQRSTVWY"
    rows = ["".join(letters[int(i)] for i in torch.randint(20, (30,), generator=source)) for _ in range(40)]
    (folder / "some.fasta").write_text("".join(f">{i}\n{row}\n" for i, row in enumerate(rows)))
    common = (f"data.path={folder / 'some.fasta'}", *SHAPE, *STEPS)
    train_experiment(load_experiment("dplm/tiny", common), folder / "plain", device="cpu")
    more = (f"init_from={folder / 'plain'}", "model.lora={rank: 2}", "train.optim.lr=0.01")
    train_experiment(load_experiment("dplm/tiny", (*common, *more)), folder / "adapted", device="cpu")
    return open_run(folder / "plain", device="cpu"), open_run(folder / "adapted", device="cpu")


def test_training_moves_nothing_else(run: tuple[Run, Run]) -> None:
    before, after = (one.model.state_dict() for one in run)
    for name, value in after.items():
        plain = name.replace(".base_layer.", ".")
        is_trained = name.startswith(("embedding.", "head.")) or ".lora_" in name
        assert (plain in before and torch.equal(before[plain], value)) is not is_trained, name
    assert all(after[name].any() for name in after if ".lora_B." in name)


def test_a_run_with_adapters_is_opened_and_exported_merged(run: tuple[Run, Run], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="stock models come with protlig_dd[hf]")
    transformers.utils.logging.disable_progress_bar()
    export_run(run[1], tmp_path / "out", licence="none", source="the run")
    stock, said = transformers.EsmForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["unexpected_keys"] and not said["missing_keys"]
    ids = torch.tensor([PROTEINS[0]])
    with torch.no_grad():
        theirs = stock.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        assert torch.allclose(run[1].model(batch_of(protein=PROTEINS[:1]))["protein"], theirs, atol=1e-5)


def test_a_plain_model_does_not_start_from_adapters(run: tuple[Run, Run]) -> None:
    with pytest.raises(CheckpointError, match=r"it: has adapters \(blocks.*\) and this model has none such; merge them first"):
        initialise_from(random_model(TRACKS), TRACKS, run[1].model.state_dict(), TRACKS, "it")


def test_without_peft_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"model.lora needs the package 'peft' .*pip install 'protlig_dd\[hf\]'"):
        adapted()


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rank: found .* expected 1 or more"):
        LoraSettings(**changes)  # type: ignore[arg-type]
