#!/usr/bin/env python3
"""Print the size of the package: files, lines, floors, the largest folder, file and function. `python scripts/house_figures.py [CHECKOUT]`"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
PACKAGE = ROOT / "protlig_dd"


def floors() -> int:
    """Return the number of floors that tests/test_house_style.py states."""
    tree = ast.parse((ROOT / "tests" / "test_house_style.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            assert isinstance(node.value, ast.List)
            return len(node.value.elts)
    raise SystemExit("tests/test_house_style.py: found no FLOORS")


def functions(path: Path) -> list[tuple[int, str]]:
    """Return (lines, place) of each function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    name = path.relative_to(ROOT)
    return [((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}: {node.name}") for node in found]


def main() -> None:
    """Print one figure a line."""
    files = sorted(PACKAGE.rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    folders = Counter(path.parent.relative_to(ROOT) for path in files)
    entries = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and p.name != "__pycache__")]
    (folder, number), (size, place) = (folders.most_common(1)[0], max(found for path in files for found in functions(path)))
    longest = max(files, key=lines.__getitem__)
    print(f".py files at the root of the package   {folders[PACKAGE.relative_to(ROOT)]}")
    print(f"entries at the top of the package      {len(entries)}")
    print(f"floors                                 {floors()}")
    print(f"largest flat folder                    {number} files ({folder})")
    print(f"files of the package                   {len(files)}")
    print(f"lines of the package                   {sum(lines.values()):,}")
    print(f"longest file                           {lines[longest]} lines ({longest.relative_to(ROOT)})")
    print(f"longest function                       {size} lines ({place})")


if __name__ == "__main__":
    main()
