"""Tests of the value that carries a denoiser with its diffusion, tracks and device."""

from __future__ import annotations

import ast
from pathlib import Path

import protlig_dd

_TOGETHER = {"denoiser", "diffusion", "tracks", "device"}


def test_no_function_takes_three_of_a_denoiser_its_diffusion_its_tracks_and_its_device() -> None:
    package = Path(protlig_dd.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {a.arg.replace("model", "denoiser") for a in (*node.args.args, *node.args.kwonlyargs)}
                if len(names & _TOGETHER) >= 3:
                    found.append(f"{path.relative_to(package)}: {node.name}")
    assert not found
