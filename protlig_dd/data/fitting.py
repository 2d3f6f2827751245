"""Which examples of a table fit their tracks, by their lengths alone; the others are counted as `encode.Encoder` counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Integer

from protlig_dd.data.encode import EncodeReport
from protlig_dd.errors import FormatError
from protlig_dd.tokens.tracks import TrackSet

_SHOWN = 3


def fitting_rows(
    lengths: Mapping[str, Int[np.ndarray, " N"]], tracks: TrackSet, *, where: Callable[[int], str], drop_long: bool, needed: str = ""
) -> tuple[Integer[np.ndarray, " _"], EncodeReport]:
    """Return the rows whose tracks are within their maximum lengths, and the counts of the others.

    Args:
        lengths: tokens of each example by track, including begin and end.
        tracks: the tracks with their maximum lengths.
        where: returns the place of a row for messages.
        drop_long: leave out long examples; otherwise they are an error.
        needed: a track that every example must have; "" for none.

    Raises:
        FormatError: for long examples without `drop_long`.
    """
    unfit = []
    if needed:
        absent = lengths[needed] <= 2 * tracks[needed].add_ends
        unfit.append((f"no {needed}", absent, f"found no {needed}, expected one", lengths[needed]))
    for name, own in lengths.items():
        most = tracks[name].max_length
        message = f"the {name} has {{}} tokens, the track takes {most}"
        unfit.append((f"{name} longer than {most} tokens", own > most, message, own))
    count = len(next(iter(lengths.values())))
    left, dropped, first = np.ones(count, bool), dict[str, int](), dict[str, tuple[str, ...]]()
    for reason, is_out, message, numbers in unfit:
        out = np.flatnonzero(left & is_out)
        if len(out):
            dropped[reason] = len(out)
            first[reason] = tuple(f"{where(i)}: {message.format(numbers[i])}" for i in out[:_SHOWN].tolist())
        left &= ~is_out
    long = [messages[0] for reason, messages in first.items() if reason != f"no {needed}"]
    if long and not drop_long:
        raise FormatError(f"{long[0]}; set data.too_long=drop, or raise the max_length of the tracks")
    rows = np.flatnonzero(left).astype(np.uint32 if count < 2**32 else np.int64)
    return rows, EncodeReport(seen=count, kept=len(rows), dropped=dropped, first=first)
