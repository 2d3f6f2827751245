"""The house style as far as a machine can read it: floors, one file for each concern, sizes, docstrings, effects of an import."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "protlig_dd"
FLOORS = [
    {"errors", "rng", "files", "documents", "objective"},
    {"config", "config_files", "device", "checkpoints"},
    {"tokens", "training"},
    {"structures", "diffusion", "nn"},
    {"models", "sampling", "data"},
    {"evaluation"},
    {"causal", "kanzi", "report"},
    {"runs"},
    {"scaling"},
    {"cli"},
    {"__main__"},
]
SINGLE_FILES = {"errors", "config", "config_files", "device", "rng", "files", "documents", "objective"}
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}

ATTENTION, DEVICE, TRACKING = r"nn/attention\.py", r"device\.py", r"training/track(ing|ers)\.py"
DISTRIBUTED = r"training/(distributed\w*|sharded|strategies|zero3)\.py"
# What may stand in one place only: a pattern of code (comments and docstrings do not count), and the files that may hold it.
OWNERS = {
    r"flash_attn|scaled_dot_product_attention": f"{ATTENTION}",
    r"torch\.(cuda|xpu|mps|backends)\b": f"{DEVICE}|{ATTENTION}|{DISTRIBUTED}",
    r"\b(fully_shard|init_process_group|DistributedDataParallel)\b": DISTRIBUTED,
    r"\bprint\(": r"cli/entry\.py",
    # a whole folder, a set of files, and a download that can be resumed are renamed by their owners
    r"\bos\.(replace|rename)\(|\.rename\(": r"files\.py|checkpoints/checkpoint\.py|data/(foldseek/writer|subsets|downloads/fetch)\.py",
    r"class LossTerms\b": r"objective\.py",
}
# The same for optional packages, imported in any way.
PACKAGE_OWNERS = {
    "wandb": TRACKING,
    "tensorboard": TRACKING,
    "deepspeed": DISTRIBUTED,
    "flash_attn": ATTENTION,
    "jinja2": r"report/html\.py",
}
NOWHERE = {
    r"weights_only\s*=\s*False": "loading with weights_only=False runs whatever code a file holds",
    r"\b(pickle|cPickle|dill|joblib)\.(loads?\b|Unpickler\()": "unpickling runs whatever code a file holds",
    r"allow_pickle\s*=\s*True": "unpickling runs whatever code a file holds",
}


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def own_python() -> list[Path]:
    """Return the Python that users run: the package, scripts, benchmarks and the files at the top."""
    return [*package_files(), *(p for folder in ("scripts", "benchmarks") for p in (ROOT / folder).rglob("*.py")), *ROOT.glob("*.py")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def in_package(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def code_lines(path: Path) -> list[str]:
    """Return the lines of a file with comments and docstrings blanked, so that line numbers stay."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[number - 1] = ""
    return lines


def offenders(pattern: str, files: list[Path]) -> list[str]:
    return [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(code_lines(path), 1)
        if re.search(pattern, line)
    ]


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import, inside functions too, and of require("x") and import_module("x")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("require", "import_module", "find_spec", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def unit_of(module: str) -> str | None:
    """Return the file or folder at the top of the package that a dotted name lies in, or None if it lies in none."""
    parts = module.split(".")
    if parts[0] != "protlig_dd" or len(parts) < 2:
        return None
    inside = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
    return parts[1] if inside else None


def may_import(unit: str, other: str) -> bool:
    """Return whether a file of one unit may import another: its own folder, a lower floor, or a single file of the ground floor."""
    lower = FLOOR_OF[other] < FLOOR_OF[unit]
    return unit == other or lower or (unit in SINGLE_FILES and other in SINGLE_FILES)


def test_imports_go_down_the_floors() -> None:
    """A file imports from lower floors and its own folder only."""
    wrong = []
    for path in package_files():
        unit = in_package(path).split("/")[0].removesuffix(".py")
        if unit == "__init__":
            continue
        assert unit in FLOOR_OF, f"{name_of(path)}: '{unit}' has no floor; give it one in FLOORS and in docs/architecture.md"
        for line, module in imported_modules(parse(path)):
            other = unit_of(module)
            if other is not None and not may_import(unit, other):
                wrong.append(f"{name_of(path)}:{line}: {unit} (floor {FLOOR_OF[unit]}) imports {other} (floor {FLOOR_OF[other]})")
    assert not wrong, "\n".join(wrong)


def test_the_floor_rule_refuses_what_it_should() -> None:
    assert may_import("diffusion", "tokens")
    assert may_import("config", "errors")
    assert not may_import("diffusion", "nn"), "folders on one floor do not import each other"
    assert not may_import("tokens", "diffusion")
    assert not may_import("runs", "cli")
    assert not may_import("rng", "tokens")


@pytest.mark.parametrize("pattern", OWNERS)
def test_a_concern_lives_in_its_own_file(pattern: str) -> None:
    elsewhere = [p for p in package_files() if not re.fullmatch(OWNERS[pattern], in_package(p))]
    wrong = offenders(pattern, elsewhere)
    assert not wrong, f"only {OWNERS[pattern]} may hold {pattern}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGE_OWNERS)
def test_an_optional_package_is_imported_in_one_place(package: str) -> None:
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in package_files()
        if not re.fullmatch(PACKAGE_OWNERS[package], in_package(path))
        for line, module in imported_modules(parse(path))
        if package in module.split(".")[:3] and not module.startswith("protlig_dd.")
    ]
    assert not wrong, f"only {PACKAGE_OWNERS[package]} may import {package}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("pattern", NOWHERE)
def test_nothing_is_unpickled(pattern: str) -> None:
    wrong = offenders(pattern, own_python())
    assert not wrong, f"{NOWHERE[pattern]}:\n" + "\n".join(wrong)


def test_an_unpickler_of_our_own_decides_what_it_loads() -> None:
    """A subclass of Unpickler says in find_class what may be called; without it, it is pickle.load."""
    for path in own_python():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Unpickler") for base in node.bases):
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                assert "find_class" in methods, f"{name_of(path)}:{node.lineno}: {node.name} has no find_class"


def test_no_error_is_caught_by_the_handful() -> None:
    """No `except Exception`, no bare except, and no handler that only passes."""
    wrong = []
    for path in own_python():
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type is not None else {"everything"}
            if caught & {"everything", "Exception", "BaseException"}:
                wrong.append(f"{name_of(path)}:{node.lineno}: catches {', '.join(sorted(caught))}")
            elif all(isinstance(statement, ast.Pass) for statement in node.body):
                wrong.append(f"{name_of(path)}:{node.lineno}: except-pass; contextlib.suppress says what is meant")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_keep_their_size() -> None:
    """A file has at most 300 lines (320 are let through), a function at most 70, a script 60."""
    wrong = []
    for path in own_python():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 60 if path.parent == ROOT / "scripts" else 320
        if lines > limit:
            wrong.append(f"{name_of(path)}: {lines} lines, at most {limit}")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > 70:
                    wrong.append(f"{name_of(path)}:{node.lineno}: {node.name} has {size} lines, at most 70")
    assert not wrong, "\n".join(wrong)


def test_a_folder_holds_at_most_25_files() -> None:
    """Folders of the package and of its tests; more than that and nobody finds a file by its folder's name."""
    folders = {path.parent for path in (*package_files(), *(ROOT / "tests").rglob("*.py"))}
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    wrong = [f"{name_of(folder)}: {count} files" for folder, count in counts.items() if count > 25]
    assert not wrong, "at most 25 files: " + ", ".join(sorted(wrong))


def test_tests_share_through_the_support_folder() -> None:
    """A test that imports from another test cannot be read, moved or skipped alone."""
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, module in imported_modules(parse(path))
        if module.startswith("tests.") and not module.startswith("tests.support.")
    ]
    assert not wrong, "\n".join(wrong)


FAMILIES = ("causal", "kanzi")
FAMILY_TABLE = "runs/families/"


def outside_families(path: Path) -> bool:
    place = in_package(path)
    return not place.startswith((*(f"{family}/" for family in FAMILIES), FAMILY_TABLE))


def family_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every definition, argument and imported module that carries the name of a family.

    `causal` alone is the mask of attention, which every model may use.
    """
    pattern = re.compile("|".join(FAMILIES), re.IGNORECASE)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.arg):
            names = [node.arg]
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        else:
            continue
        line = getattr(node, "lineno", 0)
        yield from ((line, name) for name in names if pattern.search(name) and name not in ("causal", "is_causal"))


def test_a_familys_name_stands_in_its_folder_and_in_the_family_table_only() -> None:
    """What only one family needs is in its folder; everything else asks the table."""
    outside = [path for path in package_files() if outside_families(path) and in_package(path) != "nn/attention.py"]
    wrong = [f"{name_of(p)}: the file's name" for p in outside if any(family in p.stem for family in FAMILIES)]
    wrong += [f"{name_of(p)}:{line}: {name}" for p in outside for line, name in family_names(parse(p))]
    assert not wrong, f"only a family's folder and {FAMILY_TABLE} may name it:\n" + "\n".join(wrong)


def test_the_family_rule_sees_what_it_should() -> None:
    found = family_names(ast.parse("from protlig_dd.kanzi import flow\nis_causal = 1\nCausalThing(open_kanzi, causal=1)"))
    assert [name for _, name in found] == ["protlig_dd.kanzi", "CausalThing", "open_kanzi"]


def test_everything_public_has_a_docstring() -> None:
    """Modules, and the public functions and classes at their top."""
    wrong = []
    for path in package_files():
        tree = parse(path)
        if tree.body and not ast.get_docstring(tree):
            wrong.append(f"{name_of(path)}:1: module")
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"{name_of(path)}:{node.lineno}: {node.name}")
    assert not wrong, "no docstring:\n" + "\n".join(wrong)


def test_annotations_are_never_evaluated() -> None:
    """Every module begins with `from __future__ import annotations` (a bare __init__.py may do without)."""
    wrong = [
        name_of(path)
        for path in own_python()
        if path.name != "__init__.py" and "from __future__ import annotations" not in code_lines(path)
    ]
    assert not wrong, "\n".join(wrong)


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every text file that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines() if listed.returncode == 0 else [name_of(p) for p in own_python()]
    for name in names:
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode("utf-8", errors="replace")


MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:work|root|home|tmp|Users)(?:/|\b)")
LEFTOVER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_the_patterns_of_leftovers_match() -> None:
    assert MACHINE_PATH.search('open("' + "/wor" + 'k/x")')
    assert MACHINE_PATH.search("cd " + "/ho" + "me/me")
    assert not MACHINE_PATH.search("https://example.org/home/x and ./tmp/x")
    assert LEFTOVER.search("# TO" + "DO: later")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, LEFTOVER], ids=["machine path", "leftover"])
def test_no_file_holds_leftovers(pattern: re.Pattern[str]) -> None:
    """No path of somebody's machine and no note to oneself, in any tracked file."""
    wrong = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)


HEAVY = ("torch", "transformers", "numpy", "rdkit", "wandb", "pandas", "matplotlib")
REPORT = f"import sys; loaded = [m for m in {HEAVY!r} if m in sys.modules]; sys.stderr.write(repr(loaded)); sys.exit(bool(loaded))"


@pytest.mark.parametrize(
    "code",
    [
        "import protlig_dd",
        "import protlig_dd.config, protlig_dd.errors",
        "import sys\nfrom protlig_dd.cli.entry import main\nsys.argv = ['protlig', '--help']\n"
        "try:\n    status = main()\nexcept SystemExit as stop:\n    status = stop.code\nassert not status, status",
    ],
    ids=["import protlig_dd", "import config", "protlig --help"],
)
def test_a_light_start_does_not_import_heavy_packages(code: str) -> None:
    """`import protlig_dd` and `protlig --help` start without torch and its like."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{REPORT}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
