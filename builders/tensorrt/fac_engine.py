"""The network of both language engines. Importing this module needs ``tensorrt_llm``; ``compile`` does it late.

Embeddings in; hidden states of all rows (backbone) and logits of last rows out. Module names are those of the
converted checkpoint. Every keyword is written out: a test binds each against the recorded signatures.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorrt as trt
from tensorrt_llm._common import default_net
from tensorrt_llm._utils import pad_vocab_size, str_dtype_to_trt
from tensorrt_llm.functional import LayerNormType, Tensor, gather_last_token_logits
from tensorrt_llm.layers import (
    Attention,
    AttentionMaskType,
    AttentionParams,
    ColumnLinear,
    GatedMLP,
    KeyValueCacheParams,
    RmsNorm,
)
from tensorrt_llm.models.modeling_utils import DecoderLayerList, PretrainedModel, get_kv_cache_type_from_legacy
from tensorrt_llm.models.qwen.config import QWenConfig
from tensorrt_llm.module import Module

from runtime.engines.trtllm.spec import BEAM_WIDTH, HIDDEN_STATES, INPUT_EMBEDS, LOGITS

ONE_RANK = 1


class FacLayer(Module):
    """One Qwen3 layer. The stock one does not pass the epsilon of the q and k norms, which then is another."""

    def __init__(self, config: QWenConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = _norm(config)
        self.attention = Attention(
            local_layer_idx=layer_idx,
            hidden_size=config.hidden_size,
            attention_head_size=config.head_size,
            num_attention_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            max_position_embeddings=config.max_position_embeddings,
            dtype=config.dtype,
            attention_mask_type=AttentionMaskType.causal,
            bias=False,
            dense_bias=False,
            position_embedding_type=config.position_embedding_type,
            rotary_embedding_base=config.rotary_base,
            rotary_embedding_scaling=config.rotary_scaling,
            quant_mode=config.quant_mode,
            qk_layernorm=True,
            layernorm_type=LayerNormType.RmsNorm,
            eps=config.norm_epsilon,
        )
        self.post_layernorm = _norm(config)
        self.mlp = GatedMLP(
            hidden_size=config.hidden_size,
            ffn_hidden_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            bias=False,
            dtype=config.dtype,
            quant_mode=config.quant_mode,
        )

    def forward(
        self,
        hidden_states: Tensor,
        use_cache: bool = True,
        attention_mask: Tensor | None = None,
        kv_cache_params: KeyValueCacheParams | None = None,
        attention_params: AttentionParams | None = None,
    ) -> tuple[Tensor, Tensor]:
        """[rows, hidden] to the same and the layer's cache, as the list of layers calls it."""
        attended, present = self.attention(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            use_cache=use_cache,
            kv_cache_params=kv_cache_params,
            attention_params=attention_params,
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_layernorm(hidden_states)), present


class FacEngine(PretrainedModel):
    """Backbone and speech head; the speech head has one more matrix before its head and gives logits only."""

    config_class = QWenConfig

    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.layers = DecoderLayerList(FacLayer, config)
        self.ln_f = _norm(config)
        head_inputs = config.hidden_size
        if config.output_matching_size:
            self.output_matching = _linear(config, head_inputs, config.output_matching_size)
            head_inputs = config.output_matching_size
        self.lm_head = _linear(config, head_inputs, pad_vocab_size(config.vocab_size, ONE_RANK))
        Attention.create_attention_const_params(self, config)  # rope tables as buffers of the model
        self.position_embedding_type = config.position_embedding_type

    def forward(
        self,
        inputs_embeds: Tensor,
        last_token_ids: Tensor,
        kv_cache_params: KeyValueCacheParams,
        attention_params: AttentionParams,
    ) -> None:
        """Traces the network and marks its outputs."""
        filled = Attention.fill_attention_params(self, attention_params)
        hidden, _ = self.layers.forward(
            inputs_embeds, use_cache=True, kv_cache_params=kv_cache_params, attention_params=filled
        )
        hidden = self.ln_f(hidden)
        last = gather_last_token_logits(hidden, last_token_ids, True)
        if self.config.output_matching_size:
            last = self.output_matching(last)
        else:
            hidden.mark_output(HIDDEN_STATES, self.config.dtype)
        self.lm_head(last).mark_output(LOGITS, self.config.logits_dtype)

    def prepare_inputs(
        self,
        *,
        max_batch_size: int,
        max_input_len: int,
        max_seq_len: int,
        max_num_tokens: int,
        opt_num_tokens: int | None = None,
        **_: object,
    ) -> dict[str, Any]:
        """Network inputs as ``forward`` takes them, with the ranges of the one profile.

        Not the library's ``prepare_basic_inputs``: it would declare ``input_ids``, which then had to be bound.
        """
        config = self.config
        # The library compares with this very class, of which there are two by version.
        paged = get_kv_cache_type_from_legacy(True, True)
        profiles, ranges = self.get_profiles_ranges(
            max_batch_size=max_batch_size,
            max_beam_width=BEAM_WIDTH,
            max_input_len=max_input_len,
            max_num_tokens=max_num_tokens,
            max_draft_len=0,
            opt_batch_size=None,
            opt_num_tokens=opt_num_tokens,
            enable_ctx_gen_opt_profiles=False,
            multiple_profiles=False,
            kv_cache_type=paged,
        )
        embeds = Tensor(
            name=INPUT_EMBEDS,
            dtype=str_dtype_to_trt(config.dtype),
            shape=[-1, config.hidden_size],
            dim_range=OrderedDict(num_tokens=ranges["num_tokens_range"], hidden_size=[config.hidden_size] * profiles),
        )
        last_token_ids = Tensor(
            name="last_token_ids",
            dtype=trt.int32,
            shape=[-1],
            dim_range=OrderedDict(batch_size_last_token_ids=ranges["bbd_range"]),
        )
        inputs = self.prepare_attention_inputs(
            max_batch_size=max_batch_size,
            max_beam_width=BEAM_WIDTH,
            max_input_len=max_input_len,
            max_seq_len=max_seq_len,
            num_kv_heads=config.num_key_value_heads,
            head_size=config.head_size,
            num_layers=config.num_hidden_layers,
            kv_dtype=str_dtype_to_trt(config.kv_dtype),
            kv_cache_type=paged,
            num_profiles=profiles,
            remove_input_padding=True,
            use_gpt_attention_plugin=True,
            tokens_per_block=default_net().plugin_config.tokens_per_block,
            mapping=config.mapping,
        )
        return {
            INPUT_EMBEDS: embeds,
            "last_token_ids": last_token_ids,
            "kv_cache_params": _cache_params(inputs),
            "attention_params": _attention_params(inputs, max_input_len),
        }


def _norm(config: QWenConfig) -> RmsNorm:
    return RmsNorm(normalized_shape=config.hidden_size, eps=config.norm_epsilon, dtype=config.dtype)


def _linear(config: QWenConfig, inputs: int, outputs: int) -> ColumnLinear:
    return ColumnLinear(inputs, outputs, bias=False, dtype=config.dtype)


def _cache_params(inputs: dict[str, Any]) -> KeyValueCacheParams:
    return KeyValueCacheParams(
        past_key_value=inputs["past_key_value"],
        host_past_key_value_lengths=inputs["host_past_key_value_lengths"],
        host_max_attention_window_sizes=inputs["host_max_attention_window_sizes"],
        host_sink_token_length=inputs["host_sink_token_length"],
        kv_cache_block_offsets=inputs["kv_cache_block_offsets"],
        host_kv_cache_block_offsets=inputs["host_kv_cache_block_offsets"],
        host_kv_cache_pool_pointers=inputs["host_kv_cache_pool_pointers"],
        host_kv_cache_pool_mapping=inputs["host_kv_cache_pool_mapping"],
        cache_indirection=inputs["cache_indirection"],
    )


def _attention_params(inputs: dict[str, Any], max_input_len: int) -> AttentionParams:
    return AttentionParams(
        sequence_length=inputs["sequence_length"],
        context_lengths=inputs["context_lengths"],
        host_context_lengths=inputs["host_context_lengths"],
        max_context_length=max_input_len,
        host_request_types=inputs["host_request_types"],
        host_runtime_perf_knobs=inputs["host_runtime_perf_knobs"],
        host_context_progress=inputs["host_context_progress"],
    )
