"""Decoding: the tokens of a loop without cache, whatever stands beside a sequence, and nothing but structure tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from protlig_dd.causal.decoding import CausalDecoding, Decoded, decode
from protlig_dd.causal.model import Causal
from protlig_dd.tokens.tracks import Layout
from tests.support.causal_models import TRACKS, VOCABULARY, built

PROTEINS = ("MKTAYIAKQR", "GW", "ACDEF", "WWWWYYYYLLL")
PROMPTS = [VOCABULARY.prompt(TRACKS["protein"].encode(p)) for p in PROTEINS]
LENGTHS = [len(p) for p in PROTEINS]
DRAWN = CausalDecoding(temperature=1.0)
LEARNED = CausalDecoding(temperature=1.0, length="learned")


@pytest.fixture(scope="module")
def model() -> Causal:
    return built()


def decoded(model: Any, which: Sequence[int] = range(4), **settings: Any) -> list[Decoded]:
    given = {"lengths": [LENGTHS[i] for i in which], "sample_ids": list(which), "seed": 3, **settings}
    return decode(model, VOCABULARY, [PROMPTS[i] for i in which], **given)


def test_greedy_tokens_are_those_of_the_whole_sequence_each_time(model: Causal) -> None:
    """Against the same model without any cache: the likeliest structure token of the sequence so far."""
    allowed = torch.tensor(VOCABULARY.code_ids)
    for prompt, length, found in zip(PROMPTS, LENGTHS, decoded(model), strict=True):
        tokens = list(prompt)
        for _ in range(length):
            with torch.no_grad():
                logits = model(torch.tensor(tokens), Layout((len(tokens),)))[-1, allowed]
            tokens.append(int(allowed[logits.argmax()]))
        assert list(found.tokens) == tokens[len(prompt) :]


def test_a_given_length_is_kept_and_only_codes_are_written(model: Causal) -> None:
    for how in (CausalDecoding(), DRAWN, CausalDecoding(temperature=5.0, top_p=0.9)):
        found = decoded(model, decoding=how)
        assert [len(one.tokens) for one in found] == LENGTHS
        assert not any(one.ended for one in found)
        assert {i for one in found for i in one.tokens} <= set(VOCABULARY.code_ids)


@pytest.mark.parametrize("how", [DRAWN, LEARNED], ids=["given", "learned"])
def test_a_sample_does_not_depend_on_its_batch(model: Causal, how: CausalDecoding) -> None:
    together = decoded(model, decoding=how, lengths=[12] * 4)
    backwards = decoded(model, (3, 1), decoding=how, lengths=[12] * 2)
    (single,) = decoded(model, (1,), decoding=how, lengths=[12])
    assert backwards == [together[3], together[1]] and single == together[1]


def test_seeds_and_ids_draw_differently(model: Causal) -> None:
    (a,) = decoded(model, (0,), decoding=DRAWN)
    (b,) = decoded(model, (0,), decoding=DRAWN, seed=4)
    (c,) = decoded(model, (0,), decoding=DRAWN, sample_ids=[9])
    assert len({a.tokens, b.tokens, c.tokens}) == 3


def pushed_to_end(model: Causal, weight: float) -> Any:
    """The model with the end's logit raised."""

    def answer(*arguments: Any, **named: Any) -> torch.Tensor:
        logits = model(*arguments, **named)
        raised: torch.Tensor = logits + weight * torch.nn.functional.one_hot(torch.tensor(VOCABULARY.end_id), 48)
        return raised

    return answer


def test_a_learned_length_ends_where_the_model_ends(model: Causal) -> None:
    """One token at least; at most as many as may be, and then it is said that the model did not end."""
    first = decoded(pushed_to_end(model, 100.0), decoding=LEARNED, lengths=[7] * 4)
    assert all(len(one.tokens) == 1 and one.ended for one in first)
    never = decoded(pushed_to_end(model, -100.0), decoding=LEARNED, lengths=[7, 2, 9, 1])
    assert [(len(one.tokens), one.ended) for one in never] == [(7, False), (2, False), (9, False), (1, False)]
    some = decoded(pushed_to_end(model, 1.5), decoding=LEARNED, lengths=[40] * 4)
    assert len({len(one.tokens) for one in some}) > 1 and all(one.ended for one in some)
    assert all(VOCABULARY.end_id not in one.tokens for one in some)


def test_the_end_may_come_right_behind_the_last_token_that_fits(model: Causal) -> None:
    full = decoded(pushed_to_end(model, 1.5), decoding=LEARNED, lengths=[40] * 4)
    exact = decoded(pushed_to_end(model, 1.5), decoding=LEARNED, lengths=[len(one.tokens) for one in full])
    assert exact == full


def test_draws_follow_the_probabilities(model: Causal) -> None:
    """First tokens of many samples of one protein against the softmax over the codes, by chi-square at four deviations."""
    count = 4000
    found = decode(
        model, VOCABULARY, [PROMPTS[1]] * count, lengths=[1] * count, sample_ids=range(count), decoding=CausalDecoding(temperature=2.0)
    )
    with torch.no_grad():
        logits = model(torch.tensor(PROMPTS[1]), Layout((len(PROMPTS[1]),)))[-1, list(VOCABULARY.code_ids)]
    expected = (logits / 2.0).softmax(-1) * count
    place = {i: k for k, i in enumerate(VOCABULARY.code_ids)}
    observed = torch.bincount(torch.tensor([place[one.tokens[0]] for one in found]), minlength=20)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert abs(statistic - 19) < 4 * (2 * 19) ** 0.5


def test_top_p_keeps_the_likeliest_tokens(model: Causal) -> None:
    greedy, narrow = decoded(model), decoded(model, decoding=CausalDecoding(temperature=1.0, top_p=1e-6))
    assert narrow == greedy


@pytest.mark.parametrize(("which", "weight"), [((), 0.0), ((1,), 100.0), ((0, 3), -100.0)])
def test_a_process_calls_as_often_as_the_others(model: Causal, which: tuple[int, ...], weight: float) -> None:
    """A sharded model hangs otherwise: with nothing to do, with what ends early, and with what never ends."""
    asked: list[int] = []
    calls: list[int] = []

    def together(number: int) -> int:
        """Another process has 20 tokens to write, and no sequence that has ended."""
        asked.append(number)
        return max(number, 21) if len(asked) == 1 else 1

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        answer: torch.Tensor = pushed_to_end(model, weight)(*arguments, **named)
        return answer

    found = decoded(counted, which, decoding=LEARNED, lengths=[9] * len(which), together=together)
    assert (len(calls), len(asked)) == (21, 3)
    alone = decoded(pushed_to_end(model, weight), which, decoding=LEARNED, lengths=[9] * len(which))
    assert found == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"temperature": -0.5}, "temperature: found -0.5"), ({"top_p": 0.0}, "top_p: found 0.0, expected 0 < top_p <= 1")],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CausalDecoding(**changes)  # type: ignore[arg-type]
