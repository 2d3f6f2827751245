"""Fingerprints of the examples of a run, kept in its checkpoints, so that a run does not go on with other data without a word."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int64

from protlig_dd.data.bundle import PARTS, DataBundle
from protlig_dd.data.table import TokenTable

_WHOLE = 2**27  # tokens, about a second; a larger table may lie on a disk
_SAMPLED, _AT_ONCE = 2**14, 2**12  # examples


def data_fingerprint(bundle: DataBundle) -> dict[str, dict[str, Any]]:
    """Return the number of examples and the fingerprint of each part that has any; the order of the examples counts."""
    tables = {part: bundle.part(part) for part in PARTS} | {f"negatives of {part}": table for part, table in bundle.negatives.items()}
    return {name: {"examples": len(table), "fingerprint": table_fingerprint(table)} for name, table in tables.items() if len(table)}


def table_fingerprint(table: TokenTable) -> str:
    """Return 16 hexadecimal digits of a table: of its lengths, labels and tokens; names do not count.

    Of a table above 134 million tokens the tokens are those of 16,384 examples, evenly spread.
    """
    digest = hashlib.sha256()
    for name, column in sorted(table.tracks.items()):
        digest.update(f"{name} {len(column)} ".encode() + np.asarray(column.lengths, dtype="<i4").tobytes())
    for name, values in sorted(table.labels.items()):
        numbers = np.asarray(values, dtype="<f8")
        digest.update(name.encode() + np.where(np.isnan(numbers), np.float64(np.nan), numbers).tobytes())
    chosen = np.arange(len(table)) if table.num_tokens <= _WHOLE else evenly_spread(len(table), _SAMPLED)
    for rows in np.split(chosen, range(_AT_ONCE, len(chosen), _AT_ONCE)):
        for _, column in sorted(table.tracks.items()):
            digest.update(np.asarray(column.gather(rows), dtype="<i4").tobytes())
    return digest.hexdigest()[:16]


def evenly_spread(number: int, most: int) -> Int64[np.ndarray, " n"]:
    """Return at most `most` of `number` indices, from the first to the last."""
    return np.unique(np.linspace(0, number - 1, num=min(number, most), dtype=np.int64)) if number else np.zeros(0, np.int64)
