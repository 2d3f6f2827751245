"""A causal language model from protein to structure tokens: transformers' Llama, with our attention and without padding.

The network is `LlamaForCausalLM` as it stands, so what is trained here loads in stock software (`causal_export.py`); its attention runs
through `nn/attention.py` over packed sequences, so neighbours in a batch never see each other. The ids are those of `causal/sequences.py`:
a minimal vocabulary of its own, or those of a pretrained base (`bases.py`), which is trained whole or by adapters (`causal_lora.py`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from protlig_dd.causal.bases import base_vocabulary, empty_base, fill_new_rows, load_base, set_type
from protlig_dd.causal.cache import KeyValueCache
from protlig_dd.causal.lora import CausalLora, NewRows
from protlig_dd.causal.sequences import CausalVocabulary, minimal_vocabulary, new_symbols
from protlig_dd.config import settings
from protlig_dd.errors import ConfigError, require
from protlig_dd.nn.attention import Backend, attention
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.layers import check_heads
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet

ATTENTION = "protlig_packed"
TASK = "structure_given_protein"


@settings
class CausalSettings:
    """The shape of a causal model of the tracks protein and structure, whose one task is the second given the first; by default tiny.

    Args:
        hidden_size, num_heads, num_kv_heads, num_blocks, inner_size: Llama's sizes.
        rope_theta: base of the rotary wavelengths.
        norm_eps: of the norms.
        tied_head: whether the last matrix is the embedding.
        base: a pretrained Llama to start from (a Hub id or a folder), or "" for random weights and a minimal vocabulary.
        base_rows: of the base's embedding: parameters are counted with it where the base is not at hand.
        base_dtype: how the frozen weights are kept beside adapters; "4bit" is NF4 by bitsandbytes. Trained weights are float32.
        lora: train adapters and the rows of new tokens only.
        activation_checkpointing: compute blocks again in the backward pass instead of keeping what they computed.
        parameters: the honest parameter count; `protlig check` and a test hold it against the built model.
        adapter_parameters: the same for the adapters alone.
    """

    kind: Literal["causal"] = "causal"
    hidden_size: int = 128
    num_heads: int = 4
    num_kv_heads: int = 2
    num_blocks: int = 4
    inner_size: int = 352
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied_head: bool = False
    base: str = ""
    base_rows: int = 0
    base_dtype: Literal["bf16", "fp32", "4bit"] = "bf16"
    lora: CausalLora | None = None
    activation_checkpointing: bool = False
    parameters: int | None = None
    adapter_parameters: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads: found {self.num_kv_heads}, expected a divisor of num_heads {self.num_heads}"
            )
        if self.lora and not self.base:
            raise ValueError("lora: found adapters without a base, expected base: a Hub id or a folder")
        if self.base_dtype == "4bit" and not self.lora:
            raise ValueError("base_dtype: found '4bit' without lora; quantised weights cannot be trained themselves")

    def check(self, tracks: set[str], tasks: set[str], distributed: str) -> None:
        """Refuse an experiment that a causal model cannot be of.

        Raises:
            ValueError: for other tracks or tasks than its own, or weights of a type that a strategy cannot shard.
        """
        if tracks != {"protein", "structure"} or tasks != {TASK}:
            raise ValueError(
                f"model.kind: found 'causal' with the tracks {', '.join(sorted(tracks))} and diffusion.tasks {', '.join(sorted(tasks))}; "
                f"expected protein and structure, and {TASK}: 1 alone"
            )
        if self.base_dtype == "4bit" and distributed in ("fsdp", "zero3"):
            raise ValueError("model.base_dtype: 4bit weights cannot be sharded; expected train.distributed ddp or none")

    def vocabulary(self, tracks: TrackSet) -> CausalVocabulary:
        """Return the ids of the model's sequences.

        Raises:
            ConfigError: for other tracks than the two, or a base whose tokenizer would cut one of their tokens.
        """
        if set(tracks) != {"protein", "structure"}:
            raise ConfigError(f"model.kind: 'causal' has the tracks protein and structure, found {sorted(tracks)}")
        both = (tracks["protein"], tracks["structure"])
        return base_vocabulary(self.base, *both) if self.base else minimal_vocabulary(*both)

    def build(self, tracks: TrackSet, backend: Backend, *, empty: bool = False) -> Causal:
        """Return the model: freshly initialised, or with the weights of its base. On the meta device the base is not looked for.

        Args:
            tracks: protein and structure.
            backend: of attention.
            empty: on the meta device, read of the base all but its weights, so that the model is that of another process but for them.

        Raises:
            ConfigError: for tracks or a base that do not fit, or a number of adapter parameters that is not as stated.
            MissingDependencyError: without transformers, or without peft where adapters are asked for.
        """
        transformers = require("transformers", "model.kind: causal", extra="hf")
        transformers.AttentionInterface.register(ATTENTION, _packed_attention)
        dtype = self.base_dtype if self.lora else "fp32"
        if self.base and not empty and torch.get_default_device().type == "meta":
            num_new = len(new_symbols(tracks["structure"]))
            llama = transformers.LlamaForCausalLM(self._config(transformers, {"vocab_size": self.base_rows}))
            set_type(llama, dtype)
            return Causal(self, llama, backend, num_rows=self.base_rows + num_new, num_new=num_new)
        vocabulary = self.vocabulary(tracks)
        if self.base:
            read = empty_base if empty else load_base
            llama = read(self.base, self._shape, dtype=dtype, attention=ATTENTION)
        else:
            longest = sum(track.max_length for track in tracks.values()) + vocabulary.num_around
            ids = {"pad_token_id": vocabulary.pad_id, "eos_token_id": vocabulary.end_id, "bos_token_id": None}
            sizes = {"vocab_size": vocabulary.num_rows, "max_position_embeddings": longest}
            llama = transformers.LlamaForCausalLM(self._config(transformers, {**ids, **sizes}))
        return Causal(self, llama, backend, num_rows=vocabulary.num_rows, num_new=vocabulary.num_new)

    @property
    def _shape(self) -> dict[str, int]:
        return {
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "num_hidden_layers": self.num_blocks,
            "intermediate_size": self.inner_size,
        }

    def _config(self, transformers: Any, more: dict[str, int | None]) -> Any:
        rope = {"rope_type": "default", "rope_theta": self.rope_theta}
        config = transformers.LlamaConfig(
            **self._shape, **more, rms_norm_eps=self.norm_eps, tie_word_embeddings=self.tied_head, rope_parameters=rope
        )
        config._attn_implementation = ATTENTION
        return config


class Causal(nn.Module):
    """Logits of the next token of packed sequences."""

    def __init__(self, config: CausalSettings, llama: Any, backend: Backend, *, num_rows: int, num_new: int) -> None:
        super().__init__()
        self.backend, self.num_rows, self._num_new = backend, num_rows, num_new
        self.llama = llama
        self.new_rows: NewRows | None = None
        if config.lora is not None:
            self.new_rows = NewRows(llama, num_rows - num_new, num_new)
            found = config.lora.add_to(self, llama)
            if config.adapter_parameters not in (None, found):
                raise ConfigError(
                    f"model.adapter_parameters: found {config.adapter_parameters:,} in the config, the adapters have {found:,}; "
                    f"correct or remove the number"
                )
        elif num_new:
            llama.resize_token_embeddings(num_rows, mean_resizing=False)
            fill_new_rows(llama, num_new)
        if config.activation_checkpointing:
            enable = getattr(llama, "activation_checkpointing_enable", None) or llama.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # the first is the newer name of the second
        self.train()

    def forward(
        self,
        tokens: Int[Tensor, " n"],
        layout: Layout,
        *,
        rows: Int[Tensor, " a"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "a k"]:
        """Return logits of the token that follows each place.

        Args:
            tokens: sequences one behind the other; or, with a cache that has been filled, the newest token of each of its rows.
            layout: their lengths.
            rows: the places whose answers are wanted; all by default.
            cache: is filled with the sequences' keys and values, or else read and grown by one token a row.
        """
        is_empty = not layout.num_tokens
        if is_empty:  # a process without examples still calls every part, since others may wait for it there
            tokens, layout, rows, cache = tokens.new_zeros(1), Layout((1,), tokens.device), None, None
        is_next = cache is not None and cache.is_filled
        positions = cache.grow() if cache is not None and is_next else layout.position
        own = self.new_rows
        table, head = self.llama.model.embed_tokens, self.llama.lm_head
        x = table(tokens) if own is None else own(tokens, table, is_head=False)
        x = self.llama.model(
            inputs_embeds=x[None],
            position_ids=positions[None],
            use_cache=False,
            layout=layout,
            backend=self.backend,
            cache=cache,
        ).last_hidden_state[0]
        if rows is not None:
            x = x.index_select(0, rows)
        logits: Tensor = head(x) if own is None else own(x, head, is_head=True)
        return logits[:0] if is_empty else logits

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass in training: a head on the structure tokens, half of all pairs in attention."""
        config = self.llama.config
        lengths = [sum(pair) for pair in zip(*(t.layout.lengths for t in batch.tracks.values()), strict=True)]
        width = config.head_dim * config.num_attention_heads
        attended = config.num_hidden_layers * attention_flops(width, sum(n * (n + 1) // 2 for n in lengths))
        head = linear_flops(self.llama.lm_head) + (2 * config.hidden_size * self._num_new if self.new_rows else 0)
        return float(linear_flops(self.llama.model) * sum(lengths) + head * _learned(batch) + attended)

    def frozen_flops(self, batch: TrackBatch) -> float:
        """Return those of the operations whose weights are not trained: a base beside adapters."""
        tokens = sum(track.layout.num_tokens for track in batch.tracks.values())
        head = linear_flops(self.llama.lm_head, frozen_only=True)
        return float(linear_flops(self.llama.model, frozen_only=True) * tokens + head * _learned(batch))


def _learned(batch: TrackBatch) -> int:
    """Structure tokens and ends: what the head is asked for."""
    return batch.tracks["structure"].layout.num_tokens


def _packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    layout: Layout,
    backend: Backend,
    cache: KeyValueCache | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Llama's attention over packed sequences; the tensors come as [1, heads, n, d], already rotated."""
    assert attention_mask is None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if cache is not None and cache.has(module.layer_idx):
        return cache.attend(module.layer_idx, q, k, v)[None], None
    if cache is not None:
        cache.fill(module.layer_idx, k, v)
    if module.num_key_value_groups > 1:
        k, v = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (k, v))
    return attention(q, k, v, layout, layout, backend=backend, causal=True)[None], None
