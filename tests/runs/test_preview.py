"""Structures drawn during training: their agreement with the truth, in tokens and in Angstrom, and what is refused before any step."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protlig_dd.data.bundle import load
from protlig_dd.data.shards import open_shards
from protlig_dd.errors import ConfigError, FormatError, ProtligError
from protlig_dd.evaluation.trace_pairs import TracePair
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.runs.folding import open_true_chains
from protlig_dd.runs.preview import preview_hooks
from protlig_dd.runs.train import train_experiment
from protlig_dd.structures.structure_io import read_structure
from protlig_dd.tokens.structure import split_codes
from tests.support.causal_runs import ADAMW
from tests.support.folding_world import MODEL, files_of, train_kanzi, write_truth, write_world
from tests.support.preview_child import train_with_previews
from tests.support.processes import free_port
from tests.support.tables import write_shards
from tests.support.toy import start_processes

pytestmark = pytest.mark.xdist_group("folding")
DIFFUSION = (
    "model={kind: encoder, hidden_size: 16, num_heads: 2, num_blocks: 1}",
    "diffusion={parameterization: subs, weighting: linear, schedule: {kind: log_linear, eps: 0}, tasks: {structure_given_protein: 1}}",
    "sampling.sampler={kind: ancestral, num_steps: 4}",
)
QUICK = (
    *("train.steps=4", "train.checkpoint_every=4", "train.validate_every=0", "train.log_every=4"),
    *("train.tracking.tensorboard=false", "train.tracking.wandb=off", "eval.rmsd_interval=2", "eval.rmsd_samples=4"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    root = tmp_path_factory.mktemp("previews")
    write_world(root)
    return root


def run(world: Path, name: str, *overrides: str, kind: str = "causal") -> dict[int, dict[str, Any]]:
    """Train with previews and return what was logged of samples, by step."""
    shape = MODEL if kind == "causal" else DIFFUSION
    config = load_experiment("structure/kanzi_tiny", [*files_of(world), *shape, *QUICK, *overrides])
    train_experiment(config, world / name, device="cpu", make_hooks=preview_hooks)
    return logged(world / name)


def logged(folder: Path) -> dict[int, dict[str, Any]]:
    """What a run logged of samples, by step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = {row["step"]: {k: v for k, v in row.items() if k.startswith("samples/")} for row in rows}
    return {step: row for step, row in kept.items() if row}


def angstrom(world: Path, **changed: Path) -> list[str]:
    given = {"coordinates": world / "truth", "tokenizer": world / "kanzi"} | changed
    return [f"evaluation.{name}={value}" for name, value in given.items()]


@pytest.mark.parametrize("kind", ["causal", "diffusion"])
def test_a_run_of_kanzis_tokens_logs_errors_in_angstrom(world: Path, kind: str) -> None:
    found = run(world, f"logged_{kind}", *angstrom(world), kind=kind)
    assert list(found) == [2, 4]
    for row in found.values():
        assert 0 <= row["samples/token_accuracy"] <= 1 and 0 < row["samples/null_token_accuracy"] < 1
        assert 0 <= row["samples/rmsd_below_2"] <= row["samples/rmsd_below_4"] <= 1
        assert row["samples/rmsd_floor"] > 0
        if row["samples/length_match"]:
            assert row["samples/rmsd_mean"] > 0 and row["samples/rmsd_std"] >= 0 and 0 < row["samples/tm"] <= 1
        else:
            assert row["samples/rmsd_mean"] is None, "no answer of true length has no error"
    assert found[2]["samples/rmsd_floor"] == found[4]["samples/rmsd_floor"]
    assert "true " in (world / f"logged_{kind}/samples/samples_00000004.txt").read_text()
    if kind == "diffusion":  # its lengths are given
        assert found[4]["samples/length_match"] == 1
        drawn = sorted((world / "logged_diffusion/samples").glob("structures_*_00000004.pdb"))
        assert [path.name.split("_")[1] for path in drawn] == ["best", "median", "worst"]
        errors = [TracePair(name="x", predicted=p.ca, true=t.ca).rmsd for p, t in (read_structure(x).chains for x in drawn)]
        assert errors == sorted(errors)
        assert errors[0] <= found[4]["samples/rmsd_mean"] <= errors[-1]


def test_what_is_logged_depends_on_the_seed_alone(world: Path) -> None:
    first, again = (run(world, name, *angstrom(world), kind="diffusion") for name in ("first", "again"))
    assert first == again
    other = run(world, "other", "seed=1", *angstrom(world), kind="diffusion")
    assert other[4]["samples/rmsd_mean"] != first[4]["samples/rmsd_mean"]


def test_a_true_answer_is_as_far_as_the_floor_and_a_missing_one_is_no_success(world: Path) -> None:
    parts = Parts(load_experiment("structure/kanzi_tiny", [*files_of(world), *MODEL]))
    table = load(parts.config.data, parts.tracks, 0).validation
    given = (str(world / "truth"), str(world / "kanzi"))
    chains = open_true_chains(parts, table, *given, device="cpu", where=("--coordinates", "--tokenizer"))
    texts = [",".join(f"{code:03d}" for code in row) for row in chains.tokens]
    same = chains.figures(chains.decode(texts))
    assert same["rmsd_mean"] == pytest.approx(same["rmsd_floor"])
    write_shards(table, world / "shards", parts.tracks, tokens_per_shard=30)
    of_shards = open_true_chains(
        parts, open_shards(world / "shards", parts.tracks), *given, device="cpu", where=("--coordinates", "--tokenizer")
    )
    assert of_shards.names == chains.names and of_shards.tokens == chains.tokens
    predicted = chains.decode(["", texts[1] + ",000", *texts[2:]])
    assert predicted[0] is None and predicted[1] is not None and len(chains.traces(predicted)) == len(texts) - 2
    for alone, together in zip(predicted[2:], chains.floor[2:], strict=True):
        np.testing.assert_allclose(alone, together, atol=1e-4)


def test_the_precision_of_training_is_not_that_of_the_decoder(world: Path) -> None:
    full, half = (run(world, p, f"train.precision={p}", *angstrom(world), kind="diffusion") for p in ("fp32", "bf16"))
    assert half[2]["samples/rmsd_floor"] == full[2]["samples/rmsd_floor"]


def test_the_nulls_figure_is_that_of_the_commonest_token(world: Path) -> None:
    lines = (world / "t_kanzi.fasta").read_text().splitlines()[1::2]
    tokens = [split_codes(line, "kanzi") for line in lines]
    counts = Counter(token for row in tokens for token in row).most_common()
    best = {token for token, count in counts if count == counts[0][1]}
    shown = tokens[:4]
    expected = {sum(row.count(token) for row in shown) / sum(map(len, shown)) for token in best}
    found = run(world, "null", kind="diffusion")
    assert found[2]["samples/null_token_accuracy"] in [pytest.approx(value) for value in expected]
    assert "samples/rmsd_mean" not in found[2], "only where the database is named"


@pytest.mark.parametrize("kind", ["causal", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_processes_of_a_sharded_model_draw_together_and_log_once(world: Path, kind: str) -> None:
    """None waits for another, and what is logged is what one process logs."""
    shape = MODEL if kind == "causal" else DIFFUSION
    given = [*files_of(world), *shape, *QUICK, *ADAMW, *angstrom(world), "train.steps=2", "train.checkpoint_every=2"]
    two, one = world / f"two_{kind}", world / f"one_{kind}"
    children = start_processes(2, train_with_previews, free_port(), folder=two, overrides=[*given, "distributed=fsdp"])
    for child in children:
        child.join(200)
    assert [child.exitcode for child in children] == [0, 0]
    train_with_previews(one, [*given, "train.accumulation=2"])
    found, expected = (logged(folder) for folder in (two, one))
    known = {name: value for name, value in expected[2].items() if value is not None}
    assert list(found) == [2] and found[2].keys() == expected[2].keys()
    assert {name: found[2][name] for name in known} == pytest.approx(known, rel=1e-3)
    assert [p.name for p in sorted((two / "samples").iterdir())] == [p.name for p in sorted((one / "samples").iterdir())]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("no database", FormatError, r"evaluation\.coordinates '.*/nowhere': .*nowhere: found no such database"),
        ("no tokenizer", ConfigError, r"evaluation\.tokenizer: found nothing beside coordinates '.*truth', expected both"),
        ("no coordinates", ConfigError, r"evaluation\.coordinates: found nothing beside tokenizer '.*kanzi', expected"),
        ("other codes", ConfigError, r"evaluation\.tokenizer .*codes240': found an autoencoder of 240 codes, expected the 1,000"),
        ("a token model", ConfigError, r"evaluation\.tokenizer '.*token_model': .*found no autoencoder's run"),
        ("other alphabet", ConfigError, r"evaluation\.coordinates .*this run's structure tokens are 3di structure, expected Kanzi's"),
        ("name missing", FormatError, r"evaluation\.coordinates .*found no entry 'h0'"),
        ("name missing in the test part", FormatError, r"evaluation\.coordinates .*found no entry 'late'"),
        ("other lengths", FormatError, r"'h0' has 8 C-alphas and 9 structure tokens, expected as many"),
        ("other track", ConfigError, r"evaluation\.coordinates .*found evaluation\.generate 'protein', expected structure"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_step(world: Path, fault: str, error: type[ProtligError], message: str) -> None:
    given: list[str] = angstrom(world)
    kind = "causal"
    if fault == "no database":
        given = angstrom(world, coordinates=world / "nowhere")
    elif fault in ("no tokenizer", "no coordinates"):
        given = given[:1] if fault == "no tokenizer" else given[1:]
    elif fault == "other codes":
        if not (world / "codes240").exists():
            train_kanzi(world, "codes240", "model.levels=[8,6,5]")
        given = angstrom(world, tokenizer=world / "codes240")
    elif fault == "a token model":
        (world / "token_model").mkdir()
        (world / "token_model/config.yaml").write_text("model: {kind: causal}\n")
        given = angstrom(world, tokenizer=world / "token_model")
    elif fault == "other alphabet":
        texts = (world / "t.fasta").read_text().splitlines()
        (world / "t_3di.fasta").write_text("\n".join(x if x[0] == ">" else "D" * len(x) for x in texts) + "\n")
        files = [f"data.{part}structure_path={world / 't_3di.fasta'}" for part in ("", "validation_")]
        given += ["tracks.protein.beside=3di", "tracks.structure.alphabet=3di", *files]
    elif fault == "name missing":
        write_truth(world / "fewer", world, leave_out=1)
        given = angstrom(world, coordinates=world / "fewer")
    elif fault == "name missing in the test part":
        for name in ("t", "t_kanzi"):
            lines = (world / f"{name}.fasta").read_text().splitlines()
            (world / f"{name}_late.fasta").write_text(f">late\n{lines[1]}\n")
        files = [f"data.test_path={world / 't_late.fasta'}", f"data.test_structure_path={world / 't_kanzi_late.fasta'}"]
        given += ["evaluation.after_training=true", *files]
    elif fault == "other lengths":
        write_truth(world / "shorter", world, cut=1)
        given = angstrom(world, coordinates=world / "shorter")
    else:
        kind = "diffusion"
        given += ["evaluation.generate=protein"]
    with pytest.raises(error, match=message) as told:
        run(world, fault.replace(" ", "_"), *given, kind=kind)
    assert "\n" not in str(told.value)
    assert not (world / fault.replace(" ", "_") / "metrics.jsonl").exists(), "nothing was trained"
