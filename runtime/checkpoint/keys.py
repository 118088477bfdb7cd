"""Keys of config.json: those that would change the arithmetic are refused, and those that nothing here knows are told.

What is neither read (``config``) nor listed here is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import shown

# Values with which a key changes nothing; any other is refused. The first lines are Qwen3's own keys, the rest those
# by which its relatives differ: a merged or renamed checkpoint may bring them along.
MODEL_TYPE, QWEN3, MOE = "model_type", "qwen3", "qwen3_moe"
NUM_EXPERTS = "num_experts"
DECODER: dict[str, tuple[Any, ...]] = {
    MODEL_TYPE: (QWEN3,),
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "use_sliding_window": (False, None),
    "mlp_bias": (False, None),
    "qkv_bias": (False, None),
    "use_qk_norm": (True,),
    "qk_norm": (True,),
    "norm_type": ("rms_norm", "rmsnorm", None),
    "partial_rotary_factor": (1.0, None),
    "rotary_pct": (1.0, None),
    "rope_interleaved": (False, None),
    "rope_local_base_freq": (None,),
    "no_rope_layers": (None, []),
    "pruned_heads": ({}, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "is_causal": (True, None),
    "use_bidirectional_attention": (False, None),
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "embedding_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "logit_scale": (1.0, None),
    "logits_scaling": (1.0, None),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    NUM_EXPERTS: (0, None),
    "num_local_experts": (0, None),
}
# Of a backbone with experts: what its relatives have besides Qwen3-MoE's own keys.
EXPERTS: dict[str, tuple[Any, ...]] = {
    MODEL_TYPE: (MOE,),
    "shared_expert_intermediate_size": (0, None),
    "n_shared_experts": (0, None),
    "num_shared_experts": (0, None),
    "n_group": (1, None),
    "topk_group": (1, None),
    "topk_method": ("greedy", None),
    "scoring_func": ("softmax", None),
    "routed_scaling_factor": (1.0, None),
    "first_k_dense_replace": (0, None),
    "moe_layer_freq": (1, None),
    "use_expert_bias": (False, None),
    "moe_router_enable_expert_bias": (False, None),
}
TIED = "tie_word_embeddings"  # the speech head is tied to its codebook whatever its own section says
AUDIO: dict[str, tuple[Any, ...]] = {
    "continuous_features_mode": ("replace",),
    "enable_audio_invert_tower": (True,),
    "activation_function": ("gelu",),
    "scale_embedding": (False, None),
    "pruned_heads": ({}, None),
}
QUANTISED = ("quantization_config", "compression_config", "quantization", "quant_config")
LAYER_TYPES, FULL = "layer_types", "full_attention"

_DECODER_READ = (
    "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size rope_theta "
    "rope_scaling rope_parameters rms_norm_eps max_position_embeddings vocab_size layer_types"
)
_EXPERTS_READ = (
    "num_experts num_experts_per_tok moe_intermediate_size norm_topk_prob decoder_sparse_step mlp_only_layers "
    "num_local_experts"
)
_EXPERTS_HARMLESS = "output_router_logits router_aux_loss_coef router_jitter_noise"  # of training
_AUDIO_READ = (
    "num_mel_bins d_model encoder_layers encoder_attention_heads encoder_ffn_dim n_window output_dim codebook_size "
    "bos_token_id eos_token_id pad_token_id group_size max_source_positions crq_transformer_config"
)
_TOP_READ = "text_config audio_config audio_token_index"
# Of every configuration of transformers: training, generation defaults (the request decides), bookkeeping.
_HARMLESS = (
    "_attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _name_or_path "
    "architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id "
    "chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype "
    "early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task "
    "forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_range is_decoder label2id "
    "length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams "
    "num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k "
    "top_p torch_dtype torchscript transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache "
    "attention_dropout max_window_layers sliding_window"
)
_AUDIO_HARMLESS = "activation_dropout dropout encoder_layerdrop layerdrop num_hidden_layers init_std"
_TEXT_READ = "audio_bos_index audio_eos_index sil_index"
_TOP_HARMLESS = "hidden_size ignore_index vocab_size"


def check_keys(config: Fields) -> None:
    """Raises BuildError for a key whose value asks for other arithmetic than what is implemented."""
    _check_quantised(config)
    text, audio = config.section("text_config"), config.section("audio_config")
    text.refuse(TIED, (False, None))
    for decoder, neutral in ((text, _neutral(text)), (audio.section("crq_transformer_config"), DECODER)):
        _check(decoder, neutral)
        _check_layers(decoder)
    _check(audio, AUDIO)


def unknown_keys(config: Fields) -> Iterator[str]:
    """Keys with a value that nothing here knows, with their place in the file."""
    text, audio = config.section("text_config"), config.section("audio_config")
    crq = audio.section("crq_transformer_config")
    yield from _unknown(config, (_TOP_READ, _TOP_HARMLESS), ())
    experts = (_EXPERTS_READ, _EXPERTS_HARMLESS) if _has_experts(text) else ()
    yield from _unknown(text, (_DECODER_READ, _TEXT_READ, *experts), _neutral(text))
    yield from _unknown(audio, (_AUDIO_READ, _AUDIO_HARMLESS), AUDIO)
    yield from _unknown(crq, (_DECODER_READ,), DECODER)


def _has_experts(text: Fields) -> bool:
    return bool(text.values.get(MODEL_TYPE) == MOE)


def _neutral(text: Fields) -> dict[str, tuple[Any, ...]]:
    """Of the backbone's section, which may be of either kind."""
    if not _has_experts(text):
        return DECODER | {MODEL_TYPE: (QWEN3, MOE)}
    stated = text.values.get(NUM_EXPERTS)
    # The same number under a second name, as some versions of transformers write it.
    return DECODER | EXPERTS | {NUM_EXPERTS: (stated,), "num_local_experts": (None, stated)}


def _unknown(fields: Fields, known: Iterable[str], checked: Iterable[str]) -> Iterator[str]:
    names = {name for words in (*known, _HARMLESS) for name in words.split()} | {*checked, *QUANTISED}
    for key, value in fields.values.items():
        if key not in names and value is not None:
            yield fields.prefix + key


def _check(fields: Fields, neutral: dict[str, tuple[Any, ...]]) -> None:
    for key, values in neutral.items():
        fields.refuse(key, values)


def _check_layers(decoder: Fields) -> None:
    layers = decoder.values.get(LAYER_TYPES)
    if layers is None:
        return
    if not isinstance(layers, list) or any(kind != FULL for kind in layers):
        raise decoder.error(LAYER_TYPES, f"is {shown(layers)}", f"only {FULL} is implemented here")


def _check_quantised(fields: Fields) -> None:
    for key, value in fields.values.items():
        if key in QUANTISED and value is not None:
            problem = f"is {shown(value)}: the weights are quantized, which cannot be read here"
            raise fields.error(key, problem, "give the checkpoint in bfloat16 that it was made from")
        if isinstance(value, dict):
            _check_quantised(fields.section(key))
