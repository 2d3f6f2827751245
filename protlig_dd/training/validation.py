"""What a validation says: the bound with its interval, averaged and raw weights, and whether it is still that of guessing by frequency."""

from __future__ import annotations

from collections.abc import Mapping

_HIDDEN = ("nll", "nll_low", "nll_high", "nll_raw", "num_examples", "perplexity", "unigram_null")


def in_words(metrics: Mapping[str, float]) -> str:
    """Return the metrics of a validation on one line: the bound with its interval and the number of examples first.

    >>> in_words({"nll": 2.5, "nll_low": 2.45, "nll_high": 2.55, "num_examples": 100, "nll_raw": 2.51})
    'nll 2.5000 [2.4500, 2.5500] on 100 examples, raw weights 2.5100'
    """
    words = []
    if "nll_low" in metrics:
        interval = f"[{metrics['nll_low']:.4f}, {metrics['nll_high']:.4f}]"
        words.append(f"nll {metrics['nll']:.4f} {interval} on {metrics['num_examples']:,.0f} examples")
    elif "nll" in metrics:
        words.append(f"nll {metrics['nll']:.4f}")
    if "nll_raw" in metrics:
        words.append(f"raw weights {metrics['nll_raw']:.4f}")
    shown = {name: value for name, value in metrics.items() if name.partition("/")[0] not in _HIDDEN or name.count("/") == 2}
    return ", ".join([*words, *(f"{name} {value:.4f}" for name, value in shown.items())])


def on_plateau(metrics: Mapping[str, float]) -> list[str]:
    """Return the tracks ("" for all together) whose bound cannot be told from the unigram null: its 95 % interval reaches the null."""
    nulls = {name.removeprefix("unigram_null"): value for name, value in metrics.items() if name.startswith("unigram_null")}
    return [end.removeprefix("/") for end, null in nulls.items() if not metrics[f"nll_high{end}"] < null]


def plateau_advice(tracks: list[str], metrics: Mapping[str, float], *, done: float) -> str:
    """Return the line that says that tracks have not left the unigram plateau after a share of the run, and what to try."""
    told = []
    for track in tracks:
        end = f"/{track}" if track else ""
        told.append(f"{track or 'nll'} {metrics[f'nll{end}']:.3f}, null {metrics[f'unigram_null{end}']:.3f}")
    return (
        f"not left the unigram plateau after {done:.0%} of the run ({'; '.join(told)}): so far the model knows only how frequent each token is. "
        f"Try another learning rate (protlig lr-find), more steps, or the settings of docs/learning.md"
    )
