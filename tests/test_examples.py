"""The examples in docstrings run, and print what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "protlig_dd"
HOW = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROMPT = ">>> "


def with_examples() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if PROMPT in path.read_text(encoding="utf-8")]


def documented(path: Path) -> list[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """Return the module, the classes and the functions of a file whose docstrings have an example."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [node for node in nodes if isinstance(node, kinds) and PROMPT in (ast.get_docstring(node) or "")]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def run_example(example: doctest.DocTest) -> None:
    """Run one docstring's examples; an exception is raised as it is, other output is an AssertionError."""
    try:
        doctest.DebugRunner(optionflags=HOW).run(example)
    except doctest.UnexpectedException as stop:
        raise stop.exc_info[1] from None
    except doctest.DocTestFailure as stop:
        shown = f"{stop.example.source}expected\n{stop.example.want}found\n{stop.got}"
        raise AssertionError(f"{example.name}: {shown}") from None


@pytest.mark.parametrize("path", with_examples(), ids=module_name)
def test_the_examples_of_a_module_print_what_they_say(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(module_name(path))
    found = [docstring for docstring in doctest.DocTestFinder().find(module) if docstring.examples]
    assert len(found) == len(documented(path)), f"{path.name}: doctest does not find every example"
    for example in found:
        run_example(example)


def test_an_example_that_prints_something_else_fails() -> None:
    parse = doctest.DocTestParser().get_doctest
    run_example(parse(">>> 1 + 1\n2\n", {}, "a sum", None, 0))
    with pytest.raises(AssertionError, match=r"a sum: 1 \+ 1\nexpected\n3\nfound\n2"):
        run_example(parse(">>> 1 + 1\n3\n", {}, "a sum", None, 0))
    with pytest.raises(ZeroDivisionError):
        run_example(parse(">>> 1 / 0\n3\n", {}, "a quotient", None, 0))


def test_at_least_twenty_public_functions_have_examples() -> None:
    names = [
        f"{module_name(path)}.{node.name}"
        for path in with_examples()
        for node in documented(path)
        if not isinstance(node, ast.Module) and not node.name.startswith("_")
    ]
    assert len(names) >= 20, names
