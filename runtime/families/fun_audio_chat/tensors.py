"""Names and shapes of every tensor that the runtime reads from a Fun-Audio-Chat checkpoint.

One place states them; the loader checks a file against it and a test checks it against the names
and shapes of the released checkpoint.
"""

from __future__ import annotations

from runtime.checkpoint.decoder import DecoderConfig
from runtime.checkpoint.shards import Shapes
from runtime.families.fun_audio_chat.config import EncoderConfig, ModelConfig

BACKBONE = "language_model.model."
SPEECH_STACK = "audio_invert_tower.crq_transformer."
ENCODER = "continuous_audio_tower."
CODEBOOK = "audio_tower.embed_tokens.weight"  # the speech head's output matrix is tied to it


def decoder_shapes(prefix: str, config: DecoderConfig) -> Shapes:
    """A Qwen3 stack without embedding and head."""
    hidden, dim = config.hidden_size, config.head_dim
    attention = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (config.num_heads * dim, hidden),
        "self_attn.k_proj.weight": (config.num_kv_heads * dim, hidden),
        "self_attn.v_proj.weight": (config.num_kv_heads * dim, hidden),
        "self_attn.o_proj.weight": (hidden, config.num_heads * dim),
        "self_attn.q_norm.weight": (dim,),
        "self_attn.k_norm.weight": (dim,),
    }
    shapes = {
        f"{prefix}layers.{i}.{name}": shape
        for i in range(config.num_layers)
        for name, shape in (attention | _mlp_shapes(config, i)).items()
    }
    shapes[f"{prefix}norm.weight"] = (hidden,)
    return shapes


def _mlp_shapes(config: DecoderConfig, layer: int) -> Shapes:
    experts = config.experts_of(layer)
    if experts is None:
        return _gated_shapes("mlp", config.hidden_size, config.intermediate_size)
    shapes: Shapes = {"mlp.gate.weight": (experts.count, config.hidden_size)}
    for expert in range(experts.count):
        shapes |= _gated_shapes(f"mlp.experts.{expert}", config.hidden_size, experts.width)
    return shapes


def _gated_shapes(name: str, hidden: int, width: int) -> Shapes:
    return {
        f"{name}.gate_proj.weight": (width, hidden),
        f"{name}.up_proj.weight": (width, hidden),
        f"{name}.down_proj.weight": (hidden, width),
    }


def backbone_shapes(config: ModelConfig) -> Shapes:
    """The text model with its embedding and head."""
    vocabulary = (config.backbone.output_size, config.backbone.hidden_size)
    return {
        f"{BACKBONE}embed_tokens.weight": vocabulary,
        "language_model.lm_head.weight": vocabulary,
        **decoder_shapes(BACKBONE, config.backbone),
    }


def speech_shapes(config: ModelConfig) -> Shapes:
    """The speech head, its input and output projections, the codebook and the feedback projection."""
    hidden, width = config.backbone.hidden_size, config.speech_head.hidden_size
    group = config.speech_ids.group_size
    return {
        CODEBOOK: (config.speech_ids.codebook_size, hidden),
        "audio_tower.output_matching.weight": (hidden, hidden),
        "audio_invert_tower.pre_matching.weight": (group * hidden, hidden),
        "audio_invert_tower.pre_matching.bias": (group * hidden,),
        "audio_invert_tower.input_matching.weight": (width, hidden),
        "audio_invert_tower.output_matching.weight": (hidden, width),
        **decoder_shapes(SPEECH_STACK, config.speech_head),
    }


def encoder_shapes(config: EncoderConfig, hidden: int) -> Shapes:
    """The continuous audio encoder and the projection of its grouped rows."""
    width, ffn = config.d_model, config.ffn_size
    layer = {
        "self_attn.q_proj.weight": (width, width),
        "self_attn.q_proj.bias": (width,),
        "self_attn.k_proj.weight": (width, width),  # no bias, as in Whisper
        "self_attn.v_proj.weight": (width, width),
        "self_attn.v_proj.bias": (width,),
        "self_attn.out_proj.weight": (width, width),
        "self_attn.out_proj.bias": (width,),
        "self_attn_layer_norm.weight": (width,),
        "self_attn_layer_norm.bias": (width,),
        "fc1.weight": (ffn, width),
        "fc1.bias": (ffn,),
        "fc2.weight": (width, ffn),
        "fc2.bias": (width,),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    shapes = {f"{ENCODER}layers.{i}.{name}": shape for i in range(config.num_layers) for name, shape in layer.items()}
    return shapes | {
        f"{ENCODER}conv1.weight": (width, config.num_mel_bins, 3),
        f"{ENCODER}conv1.bias": (width,),
        f"{ENCODER}conv2.weight": (width, width, 3),
        f"{ENCODER}conv2.bias": (width,),
        f"{ENCODER}ln_post.weight": (width,),
        f"{ENCODER}ln_post.bias": (width,),
        f"{ENCODER}proj.weight": (config.output_dim, width),
        f"{ENCODER}proj.bias": (config.output_dim,),
        "audio_tower.continual_output_matching.weight": (hidden, config.output_dim),
    }


def all_shapes(config: ModelConfig) -> Shapes:
    """Everything that any part of the runtime reads."""
    return backbone_shapes(config) | speech_shapes(config) | encoder_shapes(config.encoder, config.backbone.hidden_size)
