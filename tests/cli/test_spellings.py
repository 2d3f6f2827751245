"""The commands of DPLM's README and of its scaling fork, word for word but for the sizes: right, or one honest line."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.runs.spellings import as_typed, native_flags
from tests.support.encoders import LETTERS, QUICK, SHIFTED, fasta, sequences

pytestmark = pytest.mark.xdist_group("dplm")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which airkingbd/dplm_650m and airkingbd/dplm2_650m are tiny models, with the files that the commands name."""
    root = tmp_path_factory.mktemp("spellings")
    texts = sequences(40)
    proteins, codes = fasta(root / "s.fasta", texts), fasta(root / "t.fasta", [t.translate(SHIFTED) for t in texts])
    assert (
        main(
            [
                "train",
                "dplm/tiny",
                f"data.path={proteins}",
                *QUICK,
                "sampling.sampler.num_steps=3",
                "--out",
                str(root / "airkingbd/dplm_650m"),
            ]
        )
        == 0
    )
    paired = [f"data.path={proteins}", f"data.structure_path={codes}", *QUICK, "--out", str(root / "airkingbd/dplm2_650m")]
    assert main(["train", "dplm2/tiny", *paired]) == 0
    shutil.copytree(root / "airkingbd/dplm2_650m", root / "airkingbd/dplm2_bit_650m")
    cameo = root / "data-bin/cameo2022"
    cameo.mkdir(parents=True)
    fasta(cameo / "aatype.fasta", ["MKTAYIAK", "GGSW"])
    fasta(cameo / "struct.fasta", ["DVLPQ", "SSD"])
    fasta(root / "data-bin/sequences.fasta", ["MKTAYIAK"])
    subset = root / "data-bin/uniref50_10k"
    subset.mkdir()
    (subset / "train.csv").write_text("sequence\n" + "\n".join(texts) + "\n")
    return root


def run(command: str) -> int:
    """Run a command of theirs: their scripts are `protlig sample` and `protlig train` here."""
    words = shlex.split(command.replace("\\\n", " "))
    return main([{"generate_dplm.py": "sample", "generate_dplm2.py": "sample", "train.py": "train"}.get(words[1], words[1]), *words[2:]])


SAMPLED = {
    "sequences": (
        "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 6 7 8 --saveto generation-results/dplm_650m",
        "generation-results/dplm_650m/samples.fasta",
        3 * 10,
    ),
    "sequences of the fork": (
        """python generate_dplm.py \\
    --model_name airkingbd/dplm_650m \\
    --seq_lens 6 7 \\
    --num_seqs 3 \\
    --saveto generation-results/dplm_650m""",
        "generation-results/dplm_650m/samples.fasta",
        2 * 3,
    ),
    "co-generation": (
        """python generate_dplm2.py \\
    --model_name airkingbd/dplm2_650m \\
    --task co_generation \\
    --sampling_strategy annealing@2.0:0.1 \\
    --num_seqs 2 \\
    --max_iter 3 \\
    --seq_lens 6 7 8 \\
    --saveto generation-results/dplm2_650m""",
        "generation-results/dplm2_650m/co_generation.fasta",
        3 * 2,
    ),
    "co-generation by bits": (
        """python generate_dplm2.py \\
    --model_name airkingbd/dplm2_bit_650m \\
    --task co_generation \\
    --bit_model \\
    --sampling_strategy annealing@1.1:0.1 \\
    --num_seqs 2 \\
    --max_iter 3 \\
    --seq_lens 6 7 \\
    --saveto generation-results/dplm2_bit_650m""",
        "generation-results/dplm2_bit_650m/co_generation.fasta",
        2 * 2,
    ),
    "folding": (
        """python generate_dplm2.py \\
    --model_name airkingbd/dplm2_650m \\
    --task folding \\
    --input_fasta_path data-bin/cameo2022/aatype.fasta \\
    --max_iter 4 \\
    --unmasking_strategy deterministic \\
    --sampling_strategy argmax \\
    --saveto generation-results/dplm2_650m""",
        "generation-results/dplm2_650m/folding.fasta",
        2,
    ),
    "inverse folding": (
        """python generate_dplm2.py \\
    --model_name airkingbd/dplm2_650m \\
    --task inverse_folding \\
    --input_fasta_path data-bin/cameo2022/struct.fasta \\
    --max_iter 4 \\
    --unmasking_strategy deterministic \\
    --sampling_strategy argmax \\
    --saveto generation-results/dplm2_650m""",
        "generation-results/dplm2_650m/inverse_folding.fasta",
        2,
    ),
    "the script's own names of tasks": (
        "python generate_dplm2.py --model_name airkingbd/dplm2_650m --task sequence_generation --seq_lens 5 --num_seqs 2 --saveto=out/x --max_iter 3",
        "out/x/sequence_generation.fasta",
        2,
    ),
    "backbones": (
        "python generate_dplm2.py --model_name airkingbd/dplm2_650m --task backbone_generation --seq_lens 5 --num_seqs 2 --saveto out --max_iter 3",
        "out/backbone_generation.fasta",
        2,
    ),
    "the fork's smoke test": (
        "python generate_dplm.py --checkpoint_path airkingbd/dplm_650m --num_seqs 5 --seq_len 10 --max_iter 3 --saveto generation-results/smoke_test",
        "generation-results/smoke_test/samples.fasta",
        5,
    ),
    "a file": (
        "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 5 --num_seqs 2 --saveto gen.fasta --max_iter 3",
        "gen.fasta",
        2,
    ),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_a_command_of_theirs_writes_its_samples_into_its_folder(case: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, file, num = SAMPLED[case]
    monkeypatch.chdir(world)
    shutil.rmtree(Path(file).parts[0], ignore_errors=True)
    assert run(command) == 0
    texts = [line for line in Path(file).read_text().splitlines() if not line.startswith(">")]
    assert len(texts) == num and all(set(text) <= set(LETTERS) for text in texts)


def test_folding_without_a_folder_is_printed(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(world)
    fold = "--task folding --input_fasta_path data-bin/sequences.fasta --max_iter 4 --unmasking_strategy deterministic --sampling_strategy argmax"
    assert run(f"python generate_dplm2.py --model_name airkingbd/dplm2_650m {fold}") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 and shown[0].startswith("id=0  name=p0  protein=MKTAYIAK  structure=")


def test_subsets_of_the_fork_are_made_and_named_by_their_sizes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert main(shlex.split("prepare subsets s.fasta --output_dir subsets --sizes 10 20 --seed 42 --validation 5")) == 0
    assert all(any(str(size) in path.name for path in Path("subsets").rglob("*")) for size in (10, 20))


TRAINED = {
    "training": "python train.py experiment=dplm/dplm_650m name=dplm_650m datamodule.max_tokens=600 trainer.accumulate_grad_batches=1",
    "training of the fork": """python train.py \\
    experiment=dplm/dplm_150m \\
    name=dplm_150m_10k \\
    datamodule.data_dir=data-bin/uniref50_10k \\
    trainer.max_steps=2""",
    "one device": "python train.py experiment=dplm/dplm_150m name=one datamodule.data_dir=s.fasta trainer.max_steps=2 trainer.devices=1",
    "mixed precision": "python train.py experiment=dplm/dplm_150m name=two datamodule.max_tokens=600 trainer.accumulate_grad_batches=1 trainer.precision=32",
    "less memory": "python train.py experiment=dplm/dplm_150m name=three model.gradient_ckpt=true datamodule.num_workers=2 datamodule.max_tokens=600 trainer.accumulate_grad_batches=1",
    "a quick look": "python train.py experiment=dplm/dplm_150m name=four trainer.fast_dev_run=true",
}
TINY = ["model.parameters=null"] + [word for word in QUICK if not word.startswith(("train.steps", "train.tokens_per_batch"))]


@pytest.mark.parametrize("case", TRAINED)
def test_a_training_command_of_theirs_trains(case: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    command = TRAINED[case]
    more = [*TINY, *([] if "data_dir" in command else ["data.path=s.fasta"]), *([] if "max_steps" in command else ["trainer.max_steps=2"])]
    assert run(f"{command} {shlex.join(more)}") == 0
    name = re.findall(r"name=(\S+)", command)[0]
    assert Path("runs", name, "checkpoints", "last.json").is_file()


REFUSED = {
    "python generate_dplm.py --model_name airkingbd/dplm_650m --num_seqs 100 --saveto out/motif_scaffolding": "say --unconditional",
    "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 5 --cond_position 1-4 --cond_seq ALVE": "--cond_position: write --task inpainting",
    "python generate_dplm2.py --model_name airkingbd/dplm2_650m --seq_lens 5 --save_pdb False": "--save_pdb: structure tokens of DPLM-2 are not decoded",
    "python tokenize --input_pdb_folder pdbs --output_dir pdbs/tokenized_protein": "--input_pdb_folder: DPLM-2's structure tokenizer is not here",
    "python train.py experiment=dplm/dplm_650m_invfold datamodule=cath_4.3 name=x logger=tensorboard trainer=ddp_fp16": "experiment=dplm/dplm_650m_invfold: found neither",
    "python train.py experiment=dplm/dplm_150m_smoke_test name=smoke_test": "experiment=dplm/dplm_150m_smoke_test: found neither",
    "python train.py experiment=dplm/dplm_150m callbacks.model_checkpoint.every_n_train_steps=100": "callbacks: unknown setting",
    "python train.py experiment=dplm/dplm_150m datamodule.max_len=-3": "datamodule.max_len: found",
    "python train.py experiment=dplm/dplm_150m trainer.precision=8": "trainer.precision: found '8'",
    "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 5 --num_seqs 0": "--num_seqs: found 0, expected 1 or more",
    "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 0": "--seq_lens: found 0, expected 1 or more",
    "python generate_dplm2.py --model_name airkingbd/dplm2_650m --task folding --input_fasta_path none.fasta": "none.fasta: found no such file",
    "python generate_dplm2.py --model_name airkingbd/dplm2_650m --task inverse_folding": "--structure CODES",
    "python generate_dplm2.py --model_name airkingbd/dplm2_650m --task co_generation --input_fasta_path s.fasta": "--input_fasta_path: is of no use with --task co_generation",
    "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 5 --sampling_strategy odd": "odd",
    "python generate_dplm.py --model_name airkingbd/dplm_650m --seq_lens 5 --max_iter 0": "--max_iter: found 0",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_has_no_counterpart_is_one_line_about_the_option_that_was_typed(
    command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    assert run(command) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig ")]
    assert REFUSED[command] in told


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python generate_dplm.py --model_name x --num_seqs many", "argument --num_seqs: invalid int value: 'many'"),
        ("python generate_dplm2.py --model_name x --task backbone", "argument --task: invalid choice: 'backbone'"),
        (
            "python evaluate experiment_path=x data_split=test ckpt_path=best.ckpt mode=predict task.generator.max_iter=100",
            "unrecognized arguments: data_split=test ckpt_path=best.ckpt",
        ),
    ],
)
def test_what_the_parser_refuses_is_one_line_too(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "understood" not in line]
    assert stop.value.code == 2 and words in told


def test_messages_name_what_was_typed_and_nothing_else() -> None:
    typed = ["sample", "--saveto", "x", "--task", "inverse_folding", "--input_fasta_path", "s.fasta"]
    assert as_typed("--out x: give --structure, not --output", typed) == "--saveto x: give --input_fasta_path, not --output"
    assert as_typed("seed: found x; the seed of train.steps", ["train", "train.seed=x"]) == "train.seed: found x; the seed of train.steps"
    assert as_typed("--out x", ["sample", "--out", "x"]) == "--out x"


def test_our_own_words_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["sample", "--model", "m", "--length", "5", "--out", "folder", "--task", "sequence"]
    assert native_flags(own) == own and not list(tmp_path.iterdir())
