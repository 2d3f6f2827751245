"""Which examples of a table fit their tracks, told from their lengths alone; those that do not are counted, as `encode.Encoder` counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Integer

from protlig_dd.data.encode import EncodeReport
from protlig_dd.errors import FormatError
from protlig_dd.tokens.tracks import TrackSet

_SHOWN = 3


def fitting_rows(
    lengths: Mapping[str, Int[np.ndarray, " N"]],
    tracks: TrackSet,
    *,
    where: Callable[[int], str],
    drop_long: bool,
    needed: str = "",
) -> tuple[Integer[np.ndarray, " _"], EncodeReport]:
    """Return the rows whose tracks are no longer than they may be, and the counts of the others.

    Args:
        lengths: tokens of each example by track, ends included.
        tracks: what they may be.
        where: the place of a row, for messages.
        drop_long: whether long ones are left out; else they are an error.
        needed: a track without which an example is left out; "" for none.

    Raises:
        FormatError: for long ones that may not be left out.
    """
    unfit = []
    if needed:
        absent = lengths[needed] <= 2 * tracks[needed].add_ends
        unfit.append((f"no {needed}", absent, f"found no {needed}, expected one", lengths[needed]))
    for name, own in lengths.items():
        most = tracks[name].max_length
        told = f"the {name} has {{}} tokens, the track takes {most}"
        unfit.append((f"{name} longer than {most} tokens", own > most, told, own))
    count = len(next(iter(lengths.values())))
    left, dropped, first = np.ones(count, bool), dict[str, int](), dict[str, tuple[str, ...]]()
    for reason, is_out, told, numbers in unfit:
        out = np.flatnonzero(left & is_out)
        if len(out):
            dropped[reason] = len(out)
            first[reason] = tuple(f"{where(i)}: {told.format(numbers[i])}" for i in out[:_SHOWN].tolist())
        left &= ~is_out
    long = [messages[0] for reason, messages in first.items() if reason != f"no {needed}"]
    if long and not drop_long:
        raise FormatError(f"{long[0]}; set data.too_long=drop, or raise the max_length of the tracks")
    rows = np.flatnonzero(left).astype(np.uint32 if count < 2**32 else np.int64)
    return rows, EncodeReport(seen=count, kept=len(rows), dropped=dropped, first=first)
