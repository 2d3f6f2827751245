"""run_train.sh, run_tests.sh and their set-up, with a stand-in for Python: nothing is installed here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import examples_of, require_works

ROOT = Path(__file__).resolve().parent.parent
# Records how it was called; `-m venv` makes a folder in which it stands in again, with a protlig that prints its arguments.
FAKE_PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
case "${1:-} ${2:-}" in
"-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/usr/bin/env bash\\nprintf "<%%s>" "$@"\\n' >"$3/bin/protlig"
    chmod +x "$3/bin/protlig"
    ;;
"-m pip") [ "$3" != install ] || [ -z "${FAIL_INSTALL:-}" ] || exit 1 ;;
esac
"""
FAKE_PROTLIG = '#!/usr/bin/env bash\nprintf "pid %s " "$$"\nprintf "<%s>" "$@"\n'

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, in a folder whose name has spaces."""
    folder = tmp_path / "a folder with spaces"
    (folder / "scripts").mkdir(parents=True)
    for name in ("run_train.sh", "run_tests.sh", "scripts/setup_environment.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def run(tmp_path: Path, checkout: Path) -> Run:
    """Runs a script of the checkout from another folder, with the stand-ins first on PATH."""
    write_program(tmp_path / "bin" / "python3", FAKE_PYTHON)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def call(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls"), **variables}
        return subprocess.run(
            [str(checkout / script), *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    return call


@pytest.fixture
def active(tmp_path: Path) -> None:
    """An active environment, for --no-install."""
    write_program(tmp_path / "bin" / "protlig", FAKE_PROTLIG)
    write_program(tmp_path / "bin" / "python", FAKE_PYTHON)


def calls(tmp_path: Path) -> list[str]:
    """Return how the stand-in for Python was called so far, and forget it."""
    log = tmp_path / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def installs(tmp_path: Path) -> list[str]:
    return [line.split("--quiet ")[-1] for line in calls(tmp_path) if line.startswith("-m pip install")]


@pytest.mark.parametrize("script", ["run_train.sh", "run_tests.sh", ".ci/run", "setup_wandb.py"])
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("run_train.sh", "--auto --cpu --cuda --mps --xpu --nproc --dry-run --no-install --help CONFIG key.sub=value"),
        ("run_tests.sh", "--all --fast --no-install --help"),
    ],
)
def test_help_names_every_option_and_installs_nothing(run: Run, tmp_path: Path, script: str, options: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert [option for option in options.split() if option not in done.stdout] == []
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("run_train.sh", ["--gpu"], "unknown option '--gpu'; options of 'protlig train' itself go after '--'"),
        ("run_train.sh", ["a.yaml", "b.yaml"], "found two configs, 'a.yaml' and 'b.yaml'"),
        ("run_train.sh", ["--nproc", "two"], "--nproc: found 'two', expected a number of processes"),
        ("run_train.sh", ["--nproc=0"], "--nproc: found '0', expected a number of processes"),
        ("run_train.sh", ["--nproc"], "--nproc: found nothing after it"),
        ("run_tests.sh", ["-k", "name"], "unknown option '-k'; arguments of pytest go after '--'"),
    ],
)
def test_a_wrong_option_is_named(run: Run, tmp_path: Path, script: str, arguments: list[str], message: str) -> None:
    done = run(script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert f"./{script} --help" in done.stderr
    assert calls(tmp_path) == []


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], "<train><dual_track/demo><--device><auto>"),
        (["--cpu", "my pairs.yaml", "train.lr=1e-4"], "<train><my pairs.yaml><--device><cpu><train.lr=1e-4>"),
        (["--dry-run", "data.path=a b", "--cuda"], "<check><dual_track/demo><--device><cuda><data.path=a b>"),
        (["x", "--mps", "--", "--resume=last-good"], "<train><x><--device><mps><--resume=last-good>"),
        (["--nproc", "2", "--dry-run"], "<check><dual_track/demo><--device><auto>"),
    ],
)
def test_arguments_are_passed_on(run: Run, tmp_path: Path, arguments: list[str], passed: str) -> None:
    done = run("run_train.sh", "--no-install", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 2)[2] == passed
    assert installs(tmp_path) == []


@pytest.mark.usefixtures("active")
def test_several_processes_are_a_setting_of_the_run(run: Run) -> None:
    """`protlig train` starts them itself, and says in one line which of them died."""
    done = run("run_train.sh", "--no-install", "--cpu", "--nproc", "3", "x", "a=b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 2)[2] == "<train><x><--device><cpu><a=b><train.devices=3>"


@pytest.mark.usefixtures("active")
def test_the_program_replaces_the_script_so_that_signals_reach_it(tmp_path: Path) -> None:
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls")}
    command = [str(ROOT / "run_train.sh"), "--no-install"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate(timeout=30)
    assert out.startswith(f"pid {process.pid} ")


@pytest.mark.usefixtures("active")
def test_without_the_command_the_checkout_itself_is_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bin" / "protlig").unlink()
    assert run("run_train.sh", "--no-install").returncode == 0
    assert calls(tmp_path)[-1] == "-m protlig_dd.cli train dual_track/demo --device auto"


def test_the_first_run_installs_torch_first_and_the_second_nothing(run: Run, tmp_path: Path, checkout: Path) -> None:
    first = run("run_train.sh", "--cpu", "--dry-run")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "<check><dual_track/demo><--device><cpu>"
    pin = next(line for line in (checkout / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert installs(tmp_path) == [f"-c {checkout / 'constraints.txt'} {pin}", "-c constraints.txt -e .[demo]"]
    second = run("run_train.sh", "--cpu", "--dry-run")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert calls(tmp_path) == []


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_a_changed_requirement_is_installed(run: Run, tmp_path: Path, checkout: Path, name: str) -> None:
    run("run_train.sh")
    installs(tmp_path)
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    run("run_train.sh")
    assert len(installs(tmp_path)) == 2
    run("run_train.sh")
    assert installs(tmp_path) == []


def test_another_device_or_extra_is_added_and_the_first_stays(run: Run, tmp_path: Path) -> None:
    for script in ("run_train.sh", "run_tests.sh", "run_train.sh", "run_tests.sh"):
        run(script)
    assert [line.split("-e ")[1] for line in installs(tmp_path) if "-e " in line] == [".[demo]", ".[demo,deepspeed,dev,docs,hf,structure]"]


def test_a_moved_checkout_is_installed_again(run: Run, tmp_path: Path, checkout: Path) -> None:
    run("run_train.sh")
    installs(tmp_path)
    moved = tmp_path / "moved"
    checkout.rename(moved)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls")}
    subprocess.run([str(moved / "run_train.sh")], env=environment, capture_output=True, check=True, timeout=30)
    assert len(installs(tmp_path)) == 2


def test_a_failed_installation_is_reported_and_tried_again(run: Run, tmp_path: Path) -> None:
    failed = run("run_train.sh", FAIL_INSTALL="yes")
    assert failed.returncode == 1
    assert "installing torch==" in failed.stderr
    assert "PROTLIG_TORCH_INDEX" in failed.stderr
    installs(tmp_path)
    assert run("run_train.sh").returncode == 0
    assert len(installs(tmp_path)) == 2


def test_the_index_of_torch_is_used_for_torch_alone(run: Run, tmp_path: Path) -> None:
    run("run_train.sh", PROTLIG_TORCH_INDEX="https://wheels.example.org/cu126")
    torch, project = installs(tmp_path)
    assert torch.startswith("--index-url https://wheels.example.org/cu126 torch==")
    assert "example.org" not in project


def test_a_missing_or_old_python_is_explained(run: Run, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "old"
    write_program(old, "#!/usr/bin/env bash\nexit 1\n")
    done = run("run_train.sh", PROTLIG_PYTHON=str(old))
    assert done.returncode == 1
    assert f"PROTLIG_PYTHON='{old}' is not a Python of version 3.11 or newer" in done.stderr

    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "cat", "sed", "grep", "sha256sum", "shasum", "cksum"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    done = run("run_train.sh", PATH=str(tools))
    assert done.returncode == 1
    assert "found no Python of version 3.11 or newer" in done.stderr


def test_run_tests_runs_every_check_and_keeps_slow_tests_for_all(run: Run, tmp_path: Path) -> None:
    done = run("run_tests.sh")
    assert done.returncode == 0, done.stderr
    checks = [line for line in calls(tmp_path) if line.startswith(("-m ruff", "-m mypy", "-m pytest"))]
    assert checks[:3] == ["-m ruff check .", "-m ruff format --check .", "-m mypy protlig_dd"]
    assert "-n 2" in checks[3]
    assert "-m not slow" in checks[3]
    assert "--cov=protlig_dd" in checks[3]
    assert "--cov-fail-under=95" in checks[3]

    run("run_tests.sh", "--all")
    assert "not slow" not in calls(tmp_path)[-1]

    run("run_tests.sh", "--fast", "--", "tests/test_config.py")
    fast = [line for line in calls(tmp_path) if line.startswith(("-m ruff", "-m mypy", "-m pytest"))]
    assert len(fast) == 1
    assert fast[0].endswith("-m not slow -x tests/test_config.py")


def test_ci_runs_the_tests_prints_the_time_and_keeps_the_status(tmp_path: Path) -> None:
    write_program(tmp_path / ".ci" / "run", (ROOT / ".ci" / "run").read_text())
    write_program(tmp_path / "run_tests.sh", "#!/usr/bin/env bash\necho ran\nexit 3\n")
    done = subprocess.run([str(tmp_path / ".ci" / "run")], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 3
    assert done.stdout.startswith("ran\nci: ./run_tests.sh took ")
    assert done.stdout.endswith(" s and ended with status 3\n")


def recorded_command(tmp_path: Path, stdout: str) -> list[str]:
    """Return the arguments of protlig that the stand-ins for it and for Python were called with."""
    if "<" in stdout:
        return stdout.partition("<")[2].removesuffix(">").split("><")
    return calls(tmp_path)[-1].partition("protlig_dd.cli ")[2].split()


@pytest.mark.usefixtures("active")
def test_the_examples_of_the_help_text_are_commands_that_protlig_takes(run: Run, tmp_path: Path) -> None:
    """`train.max_steps=1000`, which is no setting, once stood there."""
    lines = [line.strip() for line in run("run_train.sh", "--help").stdout.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("./run_train.sh ")]
    assert len(examples) >= 4
    for example in examples:
        done = run("run_train.sh", "--no-install", *example)
        assert done.returncode == 0, done.stderr
        require_works(recorded_command(tmp_path, done.stdout))


SCRIPTS = {
    "slurm_train.sh": lambda words: ["train", *words],
    "slurm_sample.sh": lambda words: ["sample", words[0], "--shard", "0/8", "--out", f"{words[1]}_0.csv", *words[2:]],
    "generate_ligands.py": lambda words: ["sample", *words, "--generate", "ligand"],
    "generate_proteins.py": lambda words: ["sample", *words, "--generate", "protein"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_usage_of_a_script_is_a_command_that_protlig_takes(name: str) -> None:
    text = (ROOT / "scripts" / name).read_text(encoding="utf-8")
    usages = re.findall(rf"^(?:#     sbatch .*?|python )scripts/{name} (.*)$", text, flags=re.MULTILINE)
    assert usages
    for usage in usages:
        require_works(SCRIPTS[name](shlex.split(usage)))


def test_the_commands_of_the_smoke_test_are_taken_by_protlig() -> None:
    text = (ROOT / "scripts/smoke_test.sh").read_text(encoding="utf-8").replace('"$data"', "x.fasta").replace('"$@"', "")
    train, sample = examples_of(text)
    assert (train[0], sample[0]) == ("train", "sample")
    require_works(train)
    require_works(sample)


@pytest.mark.parametrize("name", ["plot_curriculum.py", "plot_reconstruction.py"])
def test_the_usage_of_a_plot_names_its_options(name: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    (usage,) = re.findall(rf"^python scripts/{name} (.*)$", done.stdout, flags=re.MULTILINE)
    assert [word for word in usage.split() if word.startswith("--")] == ["--out"] and "--out OUT" in done.stdout
