"""A small Fun-Audio-Chat checkpoint with random weights, in the released layout. It says nothing sensible."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from builders.tiny_text import write_tokenizer
from runtime.checkpoint.experts import DENSE_LAYERS, ExpertSizes
from runtime.checkpoint.keys import MODEL_TYPE, MOE, NUM_EXPERTS, QWEN3
from runtime.checkpoint.weights import INDEX_FILE
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import all_shapes

# The codebook is as large as the released one, so that token2wav sees every id.
CODEBOOK_SIZE, SPEECH_BOS, SPEECH_EOS, SPEECH_PAD = 6565, 6561, 6562, 6563
SHARDS = 2


@dataclass(frozen=True, slots=True)
class StackSizes:
    """Sizes of one stack of decoder layers."""

    hidden: int
    layers: int
    head_dim: int
    ffn: int
    heads: int = 4
    kv_heads: int = 2
    experts: ExpertSizes | None = None


@dataclass(frozen=True, slots=True)
class ChatSizes:
    """Sizes of a checkpoint; the default ones are those of the golden one."""

    backbone: StackSizes = StackSizes(hidden=64, layers=4, head_dim=32, ffn=160)
    speech: StackSizes = StackSizes(hidden=48, layers=3, head_dim=16, ffn=96)
    encoder_width: int = 64
    encoder_layers: int = 2
    extractor_seconds: int = 300


TINY = ChatSizes()
# Layers with one MLP between those with experts.
TINY_EXPERTS = ChatSizes(
    backbone=StackSizes(
        hidden=64, layers=4, head_dim=32, ffn=160,
        experts=ExpertSizes(count=6, taken=3, width=40, normalised=False, step=2, dense_layers=(3,)),
    )
)  # fmt: skip
# 50 million parameters, for benchmarks: the time of a frame goes into the weights, not into the calls.
MID = ChatSizes(
    backbone=StackSizes(hidden=512, layers=12, head_dim=64, ffn=1536, heads=8, kv_heads=4),
    speech=StackSizes(hidden=256, layers=8, head_dim=64, ffn=768),
)


def write_tiny_chat(directory: Path, seed: int = 0, sizes: ChatSizes = TINY) -> None:
    """Writes config, tokenizer and sharded weights; the same seed gives the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(directory)
    for name, values in _configs(sizes, ids).items():
        (directory / name).write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    _write_weights(directory, seed)


def _experts(sizes: ExpertSizes | None) -> dict[str, Any]:
    if sizes is None:
        return {MODEL_TYPE: QWEN3}
    return {
        MODEL_TYPE: MOE,
        NUM_EXPERTS: sizes.count,
        "num_experts_per_tok": sizes.taken,
        "moe_intermediate_size": sizes.width,
        "norm_topk_prob": sizes.normalised,
        "decoder_sparse_step": sizes.step,
        DENSE_LAYERS: list(sizes.dense_layers),
    }


def _decoder(sizes: StackSizes, rope_theta: float, positions: int) -> dict[str, Any]:
    return _experts(sizes.experts) | {
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "intermediate_size": sizes.ffn,
        "hidden_act": "silu",
        "rope_theta": rope_theta,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": positions,
        "attention_bias": False,
        "rope_scaling": None,
        "torch_dtype": "float32",
    }


def _configs(sizes: ChatSizes, ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    vocabulary = -(-(max(ids.values()) + 1) // 64) * 64
    text = _decoder(sizes.backbone, 5e6, 262144) | {
        "vocab_size": vocabulary,
        "audio_bos_index": ids["<|audio_bos|>"],
        "audio_eos_index": ids["<|audio_eos|>"],
        "sil_index": ids["<|sil|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
    }
    audio = {
        "model_type": "funaudiochat_audio_encoder",
        "num_mel_bins": 128,
        "d_model": sizes.encoder_width,
        "encoder_layers": sizes.encoder_layers,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 2 * sizes.encoder_width,
        "activation_function": "gelu",
        "n_window": 100,
        "output_dim": sizes.backbone.hidden,
        "max_source_positions": 1500,
        "scale_embedding": False,
        "codebook_size": CODEBOOK_SIZE,
        "bos_token_id": SPEECH_BOS,
        "eos_token_id": SPEECH_EOS,
        "pad_token_id": SPEECH_PAD,
        "group_size": 5,
        "continuous_features_mode": "replace",
        "enable_audio_invert_tower": True,
        "crq_transformer_config": _decoder(sizes.speech, 1e6, 32768),
    }
    config = {
        "architectures": ["FunAudioChatForConditionalGeneration"],
        "model_type": "funaudiochat",
        "audio_token_index": ids["<|AUDIO|>"],
        "hidden_size": sizes.backbone.hidden,
        "text_config": text,
        "audio_config": audio,
        "torch_dtype": "float32",
    }
    sample_rate = 16000
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "sampling_rate": sample_rate,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": sizes.extractor_seconds,
        "n_samples": sizes.extractor_seconds * sample_rate,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    generation = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"], "max_new_tokens": 2048}
    return {"config.json": config, "preprocessor_config.json": features, "generation_config.json": generation}


def _write_weights(directory: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _random(name, shape, generator) for name, shape in sorted(all_shapes(ModelConfig.read(directory)).items())
    }
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for i in range(SHARDS):
        file = f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[i * len(names) // SHARDS : (i + 1) * len(names) // SHARDS]
        save_file({name: tensors[name] for name in part}, str(directory / file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", "utf-8")


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Normal numbers scaled so that activations keep their size; norms near one, biases near zero."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.1 * noise + (0.0 if name.endswith("bias") else 1.0)
    if "embed_tokens" in name:
        return noise
    return noise / math.sqrt(math.prod(shape[1:]))
