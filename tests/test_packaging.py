"""pyproject.toml, constraints.txt, the wheel built from them, and the suite without optional packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from protlig_dd.errors import MissingDependencyError, require
from tests.support import optional

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def pins() -> dict[str, str]:
    """Return the version of each package in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], "a constraint is name==version"
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def requirements(*extras: str) -> Iterator[Requirement]:
    """Yield the direct requirements of the core and of these extras; our own extras are expanded."""
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]:
        requirement = Requirement(text)
        if requirement.name == "protlig_dd":
            yield from requirements(*requirement.extras)
        else:
            yield requirement


def installed_by(*extras: str) -> dict[str, Distribution]:
    """Return every installed distribution that these extras require, directly or indirectly."""
    found: dict[str, Distribution] = {}
    todo = list(requirements(*extras))
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        for text in found[name].requires or []:
            further = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if further.marker is None or any(further.marker.evaluate(environment) for environment in environments):
                todo.append(further)
    return found


def licence_of(package: Distribution) -> str:
    """Return the licence that a distribution declares: its expression, the first line of its licence field, its classifiers."""
    data = package.metadata
    classifiers = [line for line in data.get_all("Classifier") or [] if line.startswith("License")]
    return "; ".join([data.get("License-Expression") or "", (data.get("License") or "").split("\n")[0], *classifiers])


def is_gpl(licence: str) -> bool:
    """Return whether a licence is the GPL or the AGPL; the LGPL and the MPL are not."""
    return re.search(r"\bA?GPL|(?<!Lesser )(?<!Library )General Public License", licence) is not None


def test_the_word_for_gpl_is_understood() -> None:
    assert is_gpl("GPL-3.0-or-later")
    assert is_gpl("License :: OSI Approved :: GNU General Public License v3 (GPLv3)")
    assert is_gpl("AGPLv3")
    assert not is_gpl("LGPL-2.1; GNU Lesser General Public License")
    assert not is_gpl("MPL-2.0 AND MIT")


@pytest.mark.parametrize("extra", ["demo", "structure", "dev", "docs"])
def test_no_package_under_the_gpl_is_brought(extra: str) -> None:
    packages = installed_by(extra)
    assert "torch" in packages
    assert {name: licence_of(p) for name, p in packages.items() if is_gpl(licence_of(p))} == {}


def test_the_demo_extra_is_what_the_main_job_shows() -> None:
    names = {requirement.name for requirement in requirements("demo")}
    assert {"rdkit", "wandb", "tensorboard", "matplotlib", "pyarrow", "zstandard", "torch"} <= names


def test_pins_lie_within_the_allowed_versions_and_cover_what_the_scripts_install() -> None:
    pinned = pins()
    for requirement in requirements("demo", "deepspeed", "dev", "docs", "structure"):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        assert pinned[name] in requirement.specifier, f"{name}=={pinned[name]} is outside {requirement.specifier}"


def test_an_older_torch_is_allowed_where_nothing_is_installed() -> None:
    torch = next(r for r in requirements() if r.name == "torch")
    assert "2.11.0" in torch.specifier
    assert "2.15.0" not in torch.specifier


def test_uv_and_pip_pin_the_same_torch() -> None:
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == [f"torch=={pins()['torch']}"]


def test_the_extras_of_the_scripts_exist() -> None:
    named = [re.search(r"setup_environment \S+ ([\w,]+)", (ROOT / s).read_text()) for s in ("run_train.sh", "run_tests.sh")]
    for match in named:
        assert match is not None
        assert set(match[1].split(",")) <= set(EXTRAS)


def test_the_wheel_holds_configs_type_marker_licence_and_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("protlig_dd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "protlig = protlig_dd.cli:main" in archive.read(entry).decode()
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*") if p.suffix in (".yaml", ".json")}
    assert configs, "there are no configs"
    assert {f"protlig_dd/{name}" for name in configs} <= names
    assert {"protlig_dd/py.typed", "protlig_dd/report/templates/run.html"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/", "deploy/"))]
    files = [path for path in (ROOT / "protlig_dd").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names, "templates and styles come with the package"


def test_hooks_are_local_and_fetch_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}
    assert {hook["language"] for repo in hooks["repos"] for hook in repo["hooks"]} == {"system"}


# The names that packages are imported by, where these differ from the names that they are installed by.
IMPORTED_AS = {"flash-attn": "flash_attn", "huggingface-hub": "huggingface_hub"}


def test_the_optional_packages_are_those_of_the_extras() -> None:
    installed_as = {r.name for extra in set(EXTRAS) - {"dev", "docs"} for r in requirements(extra)} - {r.name for r in requirements()}
    assert set(optional.OPTIONAL) == {IMPORTED_AS.get(name, name) for name in installed_as} | {"tokenizers"}


def test_only_a_missing_optional_package_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError) as told:
        require("gemmi.nothing_of_this_name", "a test", extra="structure")
    monkeypatch.setattr(optional, "find_spec", lambda package: object())
    assert optional.absent_package(told.value) is None, "gemmi is installed: a missing module of it is an error"
    monkeypatch.setattr(optional, "find_spec", lambda package: None)
    told.value.__cause__ = ModuleNotFoundError(name="gemmi.nothing_of_this_name")
    assert optional.absent_package(told.value) == "gemmi"
    assert optional.absent_package(ModuleNotFoundError(name="protlig_dd.gemmi")) is None
    assert optional.absent_package(ImportError("cannot import name")) is None


def without(packages: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process where packages, separated by spaces, are not installed."""
    path = os.pathsep.join([str(ROOT / "tests/support/absent"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "PROTLIG_ABSENT": packages}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


# Alone: the packages that test modules, or what these import, load when they are imported.
@pytest.mark.slow
@pytest.mark.parametrize(
    "absent",
    [" ".join(optional.OPTIONAL), "gemmi", "mini3di", "peft", "pyarrow", "rdkit", "scipy", "transformers"],
    ids=lambda absent: "all" if " " in absent else absent,
)
def test_the_suite_is_collected_without_optional_packages(absent: str) -> None:
    done = without(absent, "--collect-only")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"^\d{4} tests collected", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_a_test_without_its_package_is_skipped_and_names_it() -> None:
    done = without("scipy", "-rs", "tests/scaling/test_fits.py", "-k", "exact_losses")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout and "scipy is not installed" in done.stdout
