"""Which tensors of a Fun-Audio-Chat checkpoint become which tensors of the two TensorRT-LLM checkpoints.

Names on the left are those of our model definition (``fac_engine``), on the right Hugging Face's.
One rank: a tensor-parallel converter would cut these same tensors. A backbone with experts is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.checkpoint.decoder import DecoderConfig
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.profiles import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.families.fun_audio_chat.tensors import (
    BACKBONE,
    CODEBOOK,
    SPEECH_STACK,
    Shapes,
    backbone_shapes,
    speech_shapes,
)

EXPERTS_KEY = "config.json: text_config.num_experts"
BACKBONE_HEAD = "language_model.lm_head.weight"
SPEECH_MATCHING = "audio_invert_tower.output_matching.weight"

# Several sources are joined on the first axis. ``fc`` is the projection that goes through the
# activation (Hugging Face's gate), ``gate`` the one that it is multiplied with: a swap still runs.
LAYER: dict[str, tuple[str, ...]] = {
    "input_layernorm.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.q_layernorm.weight": ("self_attn.q_norm.weight",),
    "attention.k_layernorm.weight": ("self_attn.k_norm.weight",),
    "attention.dense.weight": ("self_attn.o_proj.weight",),
    "post_layernorm.weight": ("post_attention_layernorm.weight",),
    "mlp.fc.weight": ("mlp.gate_proj.weight",),
    "mlp.gate.weight": ("mlp.up_proj.weight",),
    "mlp.proj.weight": ("mlp.down_proj.weight",),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of the new checkpoint and what it is made of."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """One TensorRT-LLM checkpoint.

    ``matching_size`` is the width between ``output_matching`` and the head, 0 where there is no such layer.
    """

    name: str
    decoder: DecoderConfig
    targets: tuple[Target, ...]
    source_shapes: Shapes
    matching_size: int


def backbone_plan(config: ModelConfig) -> CheckpointPlan:
    """The text model without its embedding, which stays in torch.

    Raises:
        BuildError: it has experts.
    """
    _refuse_experts(config.backbone)
    heads = {"lm_head.weight": BACKBONE_HEAD}
    return _plan(BACKBONE_ENGINE, config.backbone, BACKBONE, backbone_shapes(config), heads, matching_size=0)


def speech_plan(config: ModelConfig) -> CheckpointPlan:
    """The speech head's stack, its output projection and the codebook as its head."""
    heads = {"output_matching.weight": SPEECH_MATCHING, "lm_head.weight": CODEBOOK}
    shapes = speech_shapes(config)
    return _plan(SPEECH_ENGINE, config.speech_head, SPEECH_STACK, shapes, heads, shapes[SPEECH_MATCHING][0])


def _refuse_experts(decoder: DecoderConfig) -> None:
    """The library has a layer of experts, but no signature of it is recorded (``tests/contracts``) to build against."""
    if decoder.experts is not None:
        problem = f"is {decoder.experts.count}: what is known for certain of TensorRT-LLM 1.2.1 has no layer of experts"
        raise BuildError(EXPERTS_KEY, problem, "use --target cuda, whose kernels run them")


def _plan(
    name: str, decoder: DecoderConfig, prefix: str, shapes: Shapes, heads: dict[str, str], matching_size: int
) -> CheckpointPlan:
    targets = [
        _target(f"layers.{i}.{target}", tuple(f"{prefix}layers.{i}.{source}" for source in sources), shapes)
        for i in range(decoder.num_layers)
        for target, sources in LAYER.items()
    ]
    targets.append(_target("ln_f.weight", (f"{prefix}norm.weight",), shapes))
    targets += [_target(target, (source,), shapes) for target, source in heads.items()]
    used = {source: shapes[source] for target in targets for source in target.sources}
    return CheckpointPlan(name, decoder, tuple(targets), used, matching_size)


def _target(name: str, sources: tuple[str, ...], shapes: Shapes) -> Target:
    rows = sum(shapes[source][0] for source in sources)
    return Target(name, sources, (rows, *shapes[sources[0]][1:]))
