"""What the ids of a published folder mean: its tokenizer's files must have the letters where ESM-2 has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protlig_dd.errors import CheckpointError, said_by
from protlig_dd.tokens.protein import SYMBOLS


def check_vocabulary(folder: Path, config: Mapping[str, Any]) -> None:
    """Check that vocab.txt, tokenizer.json and config.json's `vocab_list`, where they are there, give every amino-acid letter ESM-2's id.

    DPLM-2's vocabulary begins with the same letters, and names the other symbols differently.

    Raises:
        CheckpointError: if one of them has a letter elsewhere, or not at all: the weights then mean other letters.
    """
    for name, ids in _vocabularies(folder, config).items():
        for expected, letter in enumerate(SYMBOLS):
            if len(letter) == 1 and letter.isalpha() and ids.get(letter) != expected:
                found = f"'{letter}' has id {ids[letter]}" if letter in ids else f"'{letter}' is absent"
                raise CheckpointError(
                    f"{folder / name}: {found}, expected id {expected} as in ESM-2 and DPLM: the model's ids mean other letters; "
                    f"expected a protein model with ESM-2's vocabulary"
                )


def _vocabularies(folder: Path, config: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The id of every symbol, by the file that says so."""
    found: dict[str, dict[str, int]] = {}
    listed = config.get("vocab_list")
    if isinstance(listed, list | tuple):
        found["config.json"] = {str(symbol): i for i, symbol in enumerate(listed)}
    path = folder / "vocab.txt"
    if path.is_file():
        found[path.name] = {symbol.strip(): i for i, symbol in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines())}
    path = folder / "tokenizer.json"
    if path.is_file():
        found[path.name] = _from_tokenizer(path)
    return found


def _from_tokenizer(path: Path) -> dict[str, int]:
    """The vocabulary of a tokenizer.json of the package tokenizers, with its added symbols."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        added = {entry["content"]: entry["id"] for entry in values.get("added_tokens", [])}
        return {**values["model"]["vocab"], **added}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not readable as a tokenizer ({said_by(error)}); download it again") from error
