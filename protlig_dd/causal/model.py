"""A causal language model from protein to structure tokens: transformers' Llama, with our attention and without padding.

The network is an unmodified `LlamaForCausalLM`, so trained models load in stock software (`causal/export.py`); its attention runs through
`nn/attention.py` over packed sequences, without attention between examples. The ids are those of `causal/sequences.py`: a minimal
vocabulary, or that of a pretrained base (`bases.py`), which is trained fully or by adapters (`causal/lora.py`).
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
from protlig_dd.nn.layers import check_heads, scaled_init
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet

ATTENTION = "protlig_packed"
TASK = "structure_given_protein"


@settings
class CausalSettings:
    """The shape of a causal model of the tracks protein and structure, with the single task structure given protein; tiny by default.

    Args:
        hidden_size: width of the hidden state; a multiple of 2 x num_heads.
        num_heads: attention heads of the queries.
        num_kv_heads: attention heads of keys and values; a divisor of num_heads.
        num_blocks: blocks.
        inner_size: width of the feed-forward layers.
        rope_theta: base of the rotary wavelengths.
        norm_eps: epsilon of the RMS norms.
        tied_head: whether the last matrix is the embedding.
        base: a pretrained Llama to start from (a Hub id or a folder), or "" for random weights and a minimal vocabulary.
        base_rows: rows of the base's embedding, for the parameter count without the base at hand.
        base_dtype: dtype of the frozen weights with adapters; "4bit" is NF4 by bitsandbytes. Trained weights are float32.
        lora: train adapters and the rows of new tokens only; null trains all weights.
        init: weights of a model without a base. "llama": normal with standard deviation 0.02, as in the original. "scaled": 1 / sqrt(inputs)
            for matrices, 1 for the embedding, 0 at the end of each branch and in the head.
        activation_checkpointing: compute blocks again in the backward pass instead of keeping their activations.
        parameters: the expected number of parameters; `protlig check` compares it with the built model.
        adapter_parameters: the expected number of parameters of the adapters alone.
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
    init: Literal["llama", "scaled"] = "llama"
    activation_checkpointing: bool = False
    parameters: int | None = None
    adapter_parameters: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads: found {self.num_kv_heads}, expected a divisor of num_heads {self.num_heads}")
        if self.lora and not self.base:
            raise ValueError("lora: found adapters without a base, expected base: a Hub id or a folder")
        if self.base_dtype == "4bit" and not self.lora:
            raise ValueError("base_dtype: found '4bit' without lora; quantised weights cannot be trained themselves")

    def check(self, tracks: set[str], tasks: set[str], distributed: str) -> None:
        """Refuse an experiment that is not possible with a causal model.

        Raises:
            ValueError: for other tracks or tasks, or weights of a dtype that the strategy cannot shard.
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
            ConfigError: for other tracks, or a base whose tokenizer splits one of their symbols.
        """
        if set(tracks) != {"protein", "structure"}:
            raise ConfigError(f"model.kind: 'causal' has the tracks protein and structure, found {sorted(tracks)}")
        both = (tracks["protein"], tracks["structure"])
        return base_vocabulary(self.base, *both) if self.base else minimal_vocabulary(*both)

    def build(self, tracks: TrackSet, backend: Backend, *, empty: bool = False) -> Causal:
        """Return the model: freshly initialised, or with the weights of its base. On the meta device the base is not read.

        Args:
            tracks: protein and structure.
            backend: the attention back-end.
            empty: on the meta device, read everything of the base except its weights, so that names, shapes and dtypes are those of a
                process with weights.

        Raises:
            ConfigError: for tracks or a base that do not fit, or an unexpected number of adapter parameters.
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
            if self.init == "scaled":
                ends = [end for block in llama.model.layers for end in (block.self_attn.o_proj, block.mlp.down_proj)]
                scaled_init(llama, zeroed=ends if self.tied_head else [*ends, llama.lm_head])
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
        self, tokens: Int[Tensor, " n"], layout: Layout, *, rows: Int[Tensor, " a"] | None = None, cache: KeyValueCache | None = None
    ) -> Float[Tensor, "a k"]:
        """Return logits of the token after each position.

        Args:
            tokens: packed sequences; or, with a filled cache, the newest token of each of its rows.
            layout: their layout.
            rows: the packed positions whose logits are returned; all by default.
            cache: an empty cache is filled with the sequences' keys and values, a filled one is read and grown by one token per row.
        """
        is_empty = not layout.num_tokens
        if is_empty:  # a process without examples still calls every module, since other processes may wait for it there
            tokens, layout, rows, cache = tokens.new_zeros(1), Layout((1,), tokens.device), None, None
        is_next = cache is not None and cache.is_filled
        positions = cache.grow() if cache is not None and is_next else layout.position
        own = self.new_rows
        table, head = self.llama.model.embed_tokens, self.llama.lm_head
        x = table(tokens) if own is None else own(tokens, table, is_head=False)
        x = self.llama.model(
            inputs_embeds=x[None], position_ids=positions[None], use_cache=False, layout=layout, backend=self.backend, key_values=cache
        ).last_hidden_state[0]
        if rows is not None:
            x = x.index_select(0, rows)
        logits: Tensor = head(x) if own is None else own(x, head, is_head=True)
        return logits[:0] if is_empty else logits

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass in training: the head on structure tokens only, half of all pairs in attention."""
        config = self.llama.config
        lengths = [sum(pair) for pair in zip(*(t.layout.lengths for t in batch.tracks.values()), strict=True)]
        width = config.head_dim * config.num_attention_heads
        attended = config.num_hidden_layers * attention_flops(width, sum(n * (n + 1) // 2 for n in lengths))
        head = linear_flops(self.llama.lm_head) + (2 * config.hidden_size * self._num_new if self.new_rows else 0)
        return float(linear_flops(self.llama.model) * sum(lengths) + head * _learned(batch) + attended)

    def frozen_flops(self, batch: TrackBatch) -> float:
        """Return the forward operations of frozen weights: those of the base with adapters."""
        tokens = sum(track.layout.num_tokens for track in batch.tracks.values())
        head = linear_flops(self.llama.lm_head, frozen_only=True)
        return float(linear_flops(self.llama.model, frozen_only=True) * tokens + head * _learned(batch))


def _learned(batch: TrackBatch) -> int:
    """The number of structure tokens and ends, at which the head is evaluated."""
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
    key_values: KeyValueCache | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Llama's attention over packed sequences; query, key and value are [1, heads, n, d], already rotated.

    The cache travels as `key_values`: from transformers 5.24 on, Llama takes `cache` for one of its own.
    """
    assert attention_mask is None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if key_values is not None and key_values.has(module.layer_idx):
        return key_values.attend(module.layer_idx, q, k, v)[None], None
    if key_values is not None:
        key_values.fill(module.layer_idx, k, v)
    if module.num_key_value_groups > 1:
        k, v = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (k, v))
    return attention(q, k, v, layout, layout, backend=backend, causal=True)[None], None
