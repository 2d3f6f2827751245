"""The pages are right: commands run, links resolve, and the options, configs, settings and paths that they name exist."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from protlig_dd.cli.entry import build_parser
from protlig_dd.config_files import find_config, list_configs, read_config
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.families.table import family_of
from protlig_dd.runs.spellings import FLAGS, WITHOUT, native_overrides

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# Folders of a run or of a user, which pages name as the package's and the repository's own.
RUN_FOLDERS = {"samples/", "tensorboard/", "runs/"}
FENCE = re.compile(r"(<!-- tested -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
# Options of other programs: torchrun, accelerate, sbatch, pip.
FOREIGN = {"--append", "--standalone", "--nproc_per_node", "--config_file", "--nodes", "--array", "--extra"}
FOREIGN |= {"--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--ntasks-per-node", "--gpus-per-node", "--mem"}


def in_any(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def blocks(page: Path, *, tested: bool = False) -> list[tuple[str, str]]:
    """Return the language and the text of the fenced blocks of a page; with `tested`, only of those marked as tested."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for mark, language, text in found if mark or not tested]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command in the bash blocks of a page, without comments."""
    for language, text in blocks(page):
        if language == "bash":
            text = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", text.replace("\\\n", " "), flags=re.DOTALL)
            yield from filter(None, (shlex.split(line, comments=True) for line in text.splitlines()))


def protlig_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after `protlig` of every protlig command, whether started by name or as a module."""
    for words in commands(page):
        for i, word in enumerate(words):
            if word in ("protlig", "protlig_dd.cli") and i + 1 < len(words):
                yield words[i + 1 :]


def options_of(command: str = "") -> set[str]:
    """Return the options of a subcommand, or of all subcommands."""
    (subs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parsers = [subs.choices[command]] if command else list(subs.choices.values())
    for parser in parsers:  # a command with subcommands, such as `scaling`, appends their parsers to the list
        inner = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parsers += [step for action in inner for step in action.choices.values()]
    return {option for parser in parsers for action in parser._actions for option in action.option_strings}


def help_texts() -> dict[str, str]:
    """Return the help text of protlig and of every subcommand, by the words of the command."""
    todo, found = [("", build_parser())], {}
    while todo:
        words, parser = todo.pop()
        found[words] = parser.format_help()
        inner = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        todo += [(f"{words} {name}".strip(), step) for action in inner for name, step in action.choices.items()]
    return found


def run_blocks(page: Path, folder: Path) -> list[str]:
    """Run the tested blocks of a page in order in a folder; return the output of each."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "protlig").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m protlig_dd.cli "$@"\n', encoding="utf-8")
    (tools / "protlig").chmod(0o755)
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}
    printed = []
    for language, text in blocks(page, tested=True):
        program = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}:\n{text}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


@pytest.mark.timeout(900)
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    pytest.importorskip("rdkit", reason="the demo's molecules need RDKit (extra ligand)")
    shell, python = run_blocks(ROOT / "README.md", tmp_path)
    assert "SYNTHETIC" in shell and "matched" in shell
    assert "columns: protein = 'protein', ligand = 'ligand'" in shell
    assert len((tmp_path / "ligands.csv").read_text().splitlines()) == 5
    assert (tmp_path / "runs/demo_smoke/report.html").stat().st_size > 10_000
    assert len(python.splitlines()) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_tutorial_run(tmp_path: Path) -> None:
    printed = "\n".join(run_blocks(DOCS / "tutorial.md", tmp_path))
    assert "condition dependence of ligand_given_protein" in printed
    assert "runs/tuned" in printed
    assert (tmp_path / "mine.csv").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_dplm_page_run(tmp_path: Path) -> None:
    pytest.importorskip("gemmi", reason="gemmi is not installed (extra structure)")
    printed = "\n".join(run_blocks(DOCS / "dplm.md", tmp_path))
    assert "Spearman" in printed and "structure=" in printed and "HEAVH" in printed
    assert (tmp_path / "embeddings.safetensors").is_file()


@pytest.mark.slow
def test_the_draw_prints_what_the_page_says(tmp_path: Path) -> None:
    (printed,) = run_blocks(DOCS / "numerics.md", tmp_path)
    assert ("text", printed) in blocks(DOCS / "numerics.md")


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/tutorial/index.html").is_file()


def test_the_settings_page_is_that_of_the_code() -> None:
    spec = spec_from_file_location("generate_configs", DOCS / "generate_configs.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    generated = module.tables()
    assert "|  |" not in generated, "a setting has no meaning: say it in its docstring or in MEANINGS"
    stale = "docs/configs.md is stale; run: python docs/generate_configs.py"
    assert module.page_with(generated) == (DOCS / "configs.md").read_text(encoding="utf-8"), stale


@in_any(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            assert (page.parent / path).is_file(), f"{page.name}: '{target}' leads nowhere"
            assert not anchor, f"{page.name}: '{target}': link to pages, headings change"


def test_every_page_is_reached_from_the_readme_and_the_index() -> None:
    for start, prefix in ((ROOT / "README.md", "docs/"), (DOCS / "index.md", "")):
        text = start.read_text(encoding="utf-8")
        for page in DOCS.glob("*.md"):
            assert page.name == "index.md" or f"({prefix}{page.name})" in text, f"{start.name} does not link {page.name}"


@in_any(PAGES)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:configs|deploy|scripts|tests|benchmarks|docs)/[\w./-]*\w", text):
        assert (ROOT / name).exists(), f"{page.name} names '{name}', which does not exist"
    families = "|".join(sorted({name.split("/")[0] for name in list_configs()} - {"structure"}))
    for name in re.findall(rf"`((?:{families})/\w+|structure/\w+_\w+)`", text):
        assert find_config(name).is_file()


@in_any([*PAGES, ROOT / "CONTRIBUTING.md"])
def test_python_files_and_folders_that_are_named_exist(page: Path) -> None:
    """`path/like.py` and `folder/` are under the repository or under the package; a bare `name.py` is in one of their folders."""
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"(?<![\w/.>-])(?:[\w.-]+/)*[\w-]+\.py\b", text)
    folders = set(re.findall(r"`((?:[\w-]+/)+)`", text)) - RUN_FOLDERS
    bare = {path.name for folder in ("protlig_dd", "tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    missing = [
        name
        for name in [*files, *folders]
        if not any((top / name).exists() for top in (ROOT, ROOT / "protlig_dd")) and not ("/" not in name and name in bare)
    ]
    assert not missing, f"{page.name} names {missing}, found neither in the repository nor in protlig_dd/"


def test_run_folders_that_are_named_belong_to_a_config() -> None:
    """`runs/NAME` on a page, in a script or in a help text is the run of a packaged config, or of a `name=` or `--out` given somewhere."""
    paths = [*PAGES, *(ROOT / "scripts").iterdir(), ROOT / "run_train.sh"]
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    texts |= {f"protlig {words} --help": text for words, text in help_texts().items()}
    known = {"NAME", *(name.replace("/", "_") for name in list_configs())}
    known |= set(re.findall(r"(?:\bname(?:=|: )|--out runs/)(\w+)", "\n".join(texts.values())))
    for where, text in texts.items():
        unknown = set(re.findall(r"\bruns/(\w+)(?![\w/]*\.py)", text)) - known
        assert not unknown, f"{where} names runs/{sorted(unknown)}, which no config makes"


@in_any(PAGES)
def test_commands_have_options_and_settings_that_exist(page: Path) -> None:
    for words in protlig_commands(page):
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), words
            continue
        options = {FLAGS.get(word.split("=")[0], word.split("=")[0]) for word in words[1:] if word.startswith("--")}
        assert options <= options_of(words[0]), f"{page.name}: protlig {' '.join(words)}"
        if words[0] in ("train", "check"):
            positional = [word for word in words[1:] if not word.startswith(("-", "$"))]
            settings = [word for word in positional if "=" in word and "$" not in word]
            configs = [word for word in positional if "=" not in word and not word.endswith(".yaml")]
            if configs and configs[0] not in ("cpu", "CONFIG"):
                named, native = native_overrides(settings)
                values = read_config(named or configs[0], native)
                family_of(values).read(values)


@in_any(PAGES)
def test_options_named_in_the_text_exist(page: Path) -> None:
    scripts = "".join((ROOT / name).read_text() for name in ("run_train.sh", "run_tests.sh"))
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    known = options_of() | set(re.findall(r"--[a-z][\w-]*", scripts + benchmarks)) | FOREIGN | set(FLAGS) | set(WITHOUT)
    for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8")):
        assert option in known or page.name == "curriculum.md" and option == "--out", f"{page.name} names '{option}'"


@in_any(PAGES)
def test_pages_are_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.isascii(), [c for c in text if not c.isascii()]
    assert not re.search(r"/(?:tmp|home|root|work|Users)/|\bTODO\b", text)


def fake_slurm(folder: Path, exit_status: int) -> dict[str, str]:
    """Put stand-ins for SLURM and protlig on the PATH that record their calls."""
    stand_ins = {
        "scontrol": 'echo "scontrol $*" >> calls; [ "$1" != show ] || echo node7',
        "srun": 'echo "srun $*" | head -n 1 >> calls; while [ "${1#--}" != "$1" ]; do shift; done; SLURM_PROCID=3 SLURM_LOCALID=1 "$@"',
        "protlig": 'echo "protlig $*" >> calls; env | grep -E "^(RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|WANDB_MODE)=" | sort >> calls; '
        + f'[ "$1" = download ] || exit {exit_status}',
    }
    (folder / "bin").mkdir()
    for name, body in stand_ins.items():
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NTASKS": "8", "SLURM_CPUS_PER_TASK": "2"}
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    clean = {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "PROTLIG_VENV", "PROTLIG_DOWNLOAD")}
    return clean | job | array | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(("ended_with", "requeues", "status"), [(0, False, 0), (138, True, 0), (143, False, 143), (1, False, 1)])
def test_the_slurm_job_goes_on_only_after_its_time_was_up(tmp_path: Path, ended_with: int, requeues: bool, status: int) -> None:
    environment = fake_slurm(tmp_path, ended_with) | {"PROTLIG_DOWNLOAD": "uniref50"}
    command = [str(ROOT / "scripts/slurm_train.sh"), "dual_track/base", "data.path=my pairs.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == status, done.stderr
    assert ("scontrol requeue 42" in calls) == requeues
    assert calls.splitlines().count("protlig download uniref50 --out data") == 1
    assert "protlig train dual_track/base data.path=my pairs.csv" in calls
    assert "RANK=3\nWANDB_MODE=offline\nWORLD_SIZE=8" in calls and "LOCAL_RANK=1\nMASTER_ADDR=node7\nRANK=3" in calls


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_the_slurm_job_trains_on_two_nodes(tmp_path: Path, strategy: str) -> None:
    """One task on each of two nodes: both are the first of their node."""
    if strategy == "zero3":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed: pip install 'protlig_dd[deepspeed]'")
    environment = fake_slurm(tmp_path, 0) | {"SLURM_NTASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "PYTHONPATH": str(ROOT)}
    for name, body in {
        "scontrol": "echo 127.0.0.1",
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; export SLURM_LOCALID=0; SLURM_PROCID=1 "$@" & SLURM_PROCID=0 "$@" && wait $!',
        "protlig": f'exec {sys.executable} -m protlig_dd.cli "$@"',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
    command = [
        str(ROOT / "scripts/slurm_train.sh"),
        "demo/smoke",
        f"distributed={strategy}",
        "train.optim.kind=adamw",
        "train.steps=2",
        "evaluation.preview_every=0",
        "evaluation.after_training=false",
        "--device=cpu",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((tmp_path / "runs/demo_smoke/checkpoints/step_00000002/state.json").read_text())
    assert (state["world"], state["distributed"]) == (2, strategy)


def test_the_sampling_array_shares_the_samples_out(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts/slurm_sample.sh"), "runs/x", "ligands", "--protein", "p.fasta", "--num", "9"]
    done = subprocess.run(command, cwd=tmp_path, env=fake_slurm(tmp_path, 0), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "protlig sample runs/x --shard 2/4 --out ligands_2.csv --protein p.fasta --num 9" in (tmp_path / "calls").read_text()


def test_the_deepspeed_file_is_a_setting() -> None:
    text = (ROOT / "configs/deepspeed_zero3.json").read_text(encoding="utf-8")
    config = load_experiment("demo/smoke", ["distributed=zero3", "train.optim.kind=adamw", f"train.deepspeed={text}"])
    assert config.train.distributed == "zero3"
    assert config.train.deepspeed == json.loads(text)


@pytest.mark.slow
def test_the_curriculum_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "config.yaml").write_text("diffusion: {curriculum: {ramp: linear, steps: 20, start: 0.1}}\n")
    lines = [{"step": s, "train/loss": 2.0 - s / 100, "validation/nll": 2.1} for s in range(0, 40, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, str(ROOT / "scripts/plot_curriculum.py"), str(tmp_path), "--out", str(tmp_path / "plot.png")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_each_walk_through_the_code_stops_at_eight_files_at_most() -> None:
    """The page of the architecture follows an option, a setting and a path through the code; long walks mean too many layers."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    walks = re.split(r"^From ", text.split("## Three walks")[1].split("\n## ")[0], flags=re.MULTILINE)[1:]
    assert len(walks) == 3
    for walk in walks:
        files = set(re.findall(r"`(\w+(?:/\w+)*\.py)`", walk))
        assert 4 <= len(files) <= 8, f"{walk.splitlines()[0]}: {sorted(files)}"
        assert all((ROOT / "protlig_dd" / name).is_file() for name in files)
