"""The causal model is transformers' Llama without padding: the same numbers, and neighbours in a batch that never meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from protlig_dd.causal.cache import KeyValueCache
from protlig_dd.causal.model import Causal, CausalSettings
from protlig_dd.causal.objective import CausalObjective
from protlig_dd.causal.sequences import CausalBatch, minimal_vocabulary, pack_sequences
from protlig_dd.errors import ConfigError, MissingDependencyError
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import Layout
from tests.support.causal_models import PAIRS, SMALL, TRACKS, VOCABULARY, batch_of, built
from tests.support.small_bases import SHAPE

pytest.importorskip("transformers", reason="causal models come with protlig_dd[hf]")


def packed(*pairs: tuple[str, str]) -> CausalBatch:
    return pack_sequences(batch_of(*(pairs or PAIRS)), VOCABULARY)


def logits_of(model: Causal, batch: CausalBatch) -> Tensor:
    with torch.no_grad():
        return model(batch.tokens, batch.layout, rows=batch.rows)


@pytest.mark.parametrize("backend", ["bucketed", "padded", "per_sequence", "reference"])
def test_a_packed_batch_gives_what_each_sequence_gives_alone(backend: str) -> None:
    model = built(backend=backend)
    alone = torch.cat([logits_of(model, packed(pair)) for pair in PAIRS])
    torch.testing.assert_close(logits_of(model, packed()), alone, atol=2e-6, rtol=1e-5)


def test_each_sequence_gets_the_logits_of_stock_llama() -> None:
    """With stock attention, stock positions and no packing."""
    import transformers

    model = built()
    stock = transformers.LlamaForCausalLM(model.llama.config.__class__(**model.llama.config.to_dict())).eval()
    stock.load_state_dict(model.llama.state_dict())
    stock.set_attn_implementation("eager")
    batch = packed()
    with torch.no_grad():
        rows = [stock(input_ids=ids[None]).logits[0] for ids in batch.tokens.split(batch.layout.lengths)]
    torch.testing.assert_close(logits_of(model, batch), torch.cat(rows)[batch.rows], atol=2e-6, rtol=1e-5)


def test_scaled_weights_have_the_size_they_say_and_start_at_the_uniform_distribution() -> None:
    torch.manual_seed(0)
    model = replace(SMALL, init="scaled").build(TRACKS, "bucketed").eval()
    batch = packed()
    assert not logits_of(model, batch).any(), "every letter is as likely"
    assert 0.9 < float(model.llama.model.embed_tokens.weight.detach().std()) < 1.1
    query = model.llama.model.layers[0].self_attn.q_proj.weight.detach()
    assert 0.8 < float(query.std()) * query.shape[1] ** 0.5 < 1.2
    tied = replace(SMALL, init="scaled", tied_head=True).build(TRACKS, "bucketed").eval()
    assert 0.5 < float(logits_of(tied, batch).std()) < 2
    for linear in (tied.llama.model.layers[0].self_attn.o_proj, tied.llama.model.layers[0].mlp.down_proj):
        assert not linear.weight.any()


def test_neighbours_never_leak() -> None:
    """Other sequences before and behind change no bit of an example's loss or of what its gradients reach."""
    model = built()
    first, second = ((("GGGG", "VVVV"), PAIRS[0], ("WW", "AA")), (("CCCC", "DDDD"), PAIRS[0], ("YY", "LL")))
    results = []
    for pairs in (first, second):
        batch = packed(*pairs)
        own = (batch.layout.segment == 1)[batch.rows]
        x = model.llama.model.embed_tokens(batch.tokens).detach().requires_grad_()
        hook = model.llama.model.embed_tokens.register_forward_hook(lambda module, given, out, x=x: x)
        logits = model(batch.tokens, batch.layout, rows=batch.rows)[own]
        hook.remove()
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
        at = batch.layout.offsets
        assert gradient[: at[1]].abs().max() == 0 and gradient[at[2] :].abs().max() == 0
        results.append((logits.detach(), gradient[at[1] : at[2]]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_a_token_never_sees_what_it_shall_predict() -> None:
    model = built()
    changed = logits_of(model, packed(("MKTAY", "DDPVA")))
    before = logits_of(model, packed(("MKTAY", "DDPVV")))
    torch.testing.assert_close(before[:5], changed[:5], atol=0, rtol=0)
    assert (before[5] - changed[5]).abs().max() > 1e-3


def test_the_loss_is_that_of_structure_tokens_and_ends() -> None:
    model, objective = built(), CausalObjective(VOCABULARY)
    prepared = objective.prepare(batch_of(*PAIRS), 0)
    terms = objective.loss(model, prepared)
    log_probs = logits_of(model, prepared).log_softmax(-1)
    expected = -log_probs[torch.arange(len(prepared.targets)), prepared.targets]
    torch.testing.assert_close(terms.total.detach(), expected.sum())
    assert prepared.num_tokens == sum(len(s) + 1 for _, s in PAIRS)
    assert set(terms.counts.values()) == {float(prepared.num_tokens)}
    assert terms.sums["accuracy/structure_given_protein/structure"] == (log_probs.argmax(-1) == prepared.targets).sum()
    each = objective.nll(model, batch_of(*PAIRS))
    torch.testing.assert_close((each * torch.tensor([6.0, 3.0, 26.0])).sum(), expected.sum())


def test_the_ids_of_the_config_are_those_of_the_vocabulary() -> None:
    config = SMALL.build(TRACKS, "reference").llama.config
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id) == (48, 0, 1)
    assert config.max_position_embeddings == 512 + 512 + 4


def test_activation_checkpointing_changes_no_gradient() -> None:
    batch, gradients = packed(), []
    for checkpointing in (False, True):
        torch.manual_seed(5)
        model = CausalSettings(**SHAPE, activation_checkpointing=checkpointing).build(TRACKS, "bucketed")
        model(batch.tokens, batch.layout, rows=batch.rows).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_a_cache_gives_the_logits_of_the_whole_sequence() -> None:
    model, batch = built(), packed(*PAIRS[:2])
    whole = model(batch.tokens, batch.layout).detach()
    starts = batch.layout.offsets[:-1]
    first = (8, 5)  # tokens of the two prompts
    layout = Layout(first)
    prompts = torch.cat([batch.tokens[a : a + n] for a, n in zip(starts, first, strict=True)])
    cache = KeyValueCache(layout, 12)
    last = torch.tensor([n - 1 for n in layout.offsets[1:]])
    with torch.no_grad():
        found = [model(prompts, layout, rows=last, cache=cache)]
        for step in range(3):
            places = torch.tensor([a + n + step for a, n in zip(starts, first, strict=True)])
            found.append(model(batch.tokens[places], Layout((1, 1)), cache=cache))
    for step, logits in enumerate(found):
        places = torch.tensor([a + n - 1 + step for a, n in zip(starts, first, strict=True)])
        torch.testing.assert_close(logits, whole[places], atol=2e-6, rtol=1e-5)


def test_a_process_without_examples_still_calls_every_part() -> None:
    model, called = built(), set()
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    logits = model(torch.zeros(0, dtype=torch.int64), Layout(()))
    assert logits.shape == (0, 48)
    logits.sum().backward()
    owners = {name.rsplit(".", 1)[0] for name, _ in model.named_parameters()}
    assert owners <= called and all(p.grad is not None for p in model.parameters())


SHAPES = {
    # layers x (q, k, v, o, gate, up, down, two norms) + embedding + head + norm, written out
    "tinyllama": (
        {"hidden_size": 2048, "num_heads": 32, "num_kv_heads": 4, "num_blocks": 22, "inner_size": 5632},
        22 * (2048 * 2048 * 2 + 2048 * 256 * 2 + 3 * 2048 * 5632 + 2 * 2048) + 2 * 48 * 2048 + 2048,
    ),
    "llama-3.2-1b": (
        {"hidden_size": 2048, "num_heads": 32, "num_kv_heads": 8, "num_blocks": 16, "inner_size": 8192, "tied_head": True},
        16 * (2048 * 2048 * 2 + 2048 * 512 * 2 + 3 * 2048 * 8192 + 2 * 2048) + 48 * 2048 + 2048,
    ),
    "llama-3.1-8b": (
        {"hidden_size": 4096, "num_heads": 32, "num_kv_heads": 8, "num_blocks": 32, "inner_size": 14336},
        32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336 + 2 * 4096) + 2 * 48 * 4096 + 4096,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_published_shapes_have_their_parameters(name: str) -> None:
    shape, expected = SHAPES[name]
    with torch.device("meta"):
        model = CausalSettings(**shape).build(TRACKS, "reference")
    assert sum(p.numel() for p in model.parameters()) == expected


def test_operations_are_counted_from_layers_and_lengths() -> None:
    model, batch = SMALL.build(TRACKS, "reference"), batch_of(PAIRS[0])
    tokens = 2 * (5 + 2)  # with the ends of the tracks, as many as the sequence has: residues, codes and four more
    layers = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48)
    expected = 2 * layers * tokens + 2 * 48 * 32 * 7 + 2 * 4 * 32 * tokens * (tokens + 1) // 2
    assert len(pack_sequences(batch, VOCABULARY).tokens) == tokens
    assert model.forward_flops(batch) == expected


def test_other_tracks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'causal' has the tracks protein and structure, found \['protein'\]"):
        SMALL.build({"protein": ProteinTrack().build("protein")}, "reference")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads: found 3, expected a divisor of num_heads 4"),
        ({"base_dtype": "4bit"}, "found '4bit' without lora"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CausalSettings(**{**SHAPE, **changes})


def test_without_transformers_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"model.kind: causal needs the package 'transformers' .*\[hf\]"):
        SMALL.build(TRACKS, "reference")


def test_the_vocabulary_is_the_minimal_one() -> None:
    assert SMALL.vocabulary(TRACKS) == minimal_vocabulary(*TRACKS.values())
