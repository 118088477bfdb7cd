"""The engines that are compared: torch engines of a checkpoint, and the compiled ones of a built folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from builders.parity.cases import TRACES
from runtime.engines.base import Engine
from runtime.engines.kernel_engine import KernelEngine
from runtime.engines.kernel_stack import DecoderStack
from runtime.engines.torch_engine import TorchEngine
from runtime.engines.trtllm.files import CONFIG_FILE, ENGINES, load_engine
from runtime.engines.trtllm.spec import EngineProfile
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.profiles import BACKBONE_ENGINE, backbone_profile, speech_profile
from runtime.families.fun_audio_chat.stacks import matrix_for
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK, SPEECH_STACK
from runtime.graphs.device import CudaDevice, ops_for
from runtime.options import Options

SPARE_BLOCKS = 2  # times what the traces need: a shuffled order then leaves gaps
Weights = Mapping[str, torch.Tensor]


def parity_profile(stack: str, config: ModelConfig, options: Options, positions: int) -> EngineProfile:
    """The engine's profile with a pool just large enough for the cases: the pool's size is not compiled in.

    Args:
        positions: of the longest trace.

    Raises:
        BuildError: the options do not suit the checkpoint.
    """
    make = backbone_profile if stack == BACKBONE_ENGINE else speech_profile
    profile = make(config, options.engine)
    per_trace = -(-positions // profile.shape.tokens_per_block)
    return replace(profile, shape=replace(profile.shape, num_blocks=per_trace * TRACES * SPARE_BLOCKS))


def torch_engine(stack: str, config: ModelConfig, profile: EngineProfile, weights: Weights) -> Engine:
    """The torch engine of one stack, with hidden states of all rows."""
    if stack == BACKBONE_ENGINE:
        head = [weights["language_model.lm_head.weight"]]
        return TorchEngine(config.backbone, profile.shape, weights, BACKBONE, head)
    head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    return TorchEngine(config.speech_head, profile.shape, weights, SPEECH_STACK, head)


def kernel_engine(
    stack: str, config: ModelConfig, profile: EngineProfile, weights: Weights, linear: str
) -> KernelEngine:
    """The stack of target cuda over weights that lie on its device."""
    is_backbone = stack == BACKBONE_ENGINE
    decoder, prefix = (config.backbone, BACKBONE) if is_backbone else (config.speech_head, SPEECH_STACK)
    names = (
        ["language_model.lm_head.weight"] if is_backbone else ["audio_invert_tower.output_matching.weight", CODEBOOK]
    )
    device = weights[names[0]].device
    matrix = matrix_for(linear, device)
    made = DecoderStack(decoder, profile.shape, weights, prefix, ops_for(device), matrix)
    return KernelEngine(made, [matrix(weights[name]) for name in names])


def compiled_engine(stack: str, out: Path, profile: EngineProfile, graphs: int) -> Engine:
    """The compiled engine of one stack of a built folder. Raises BuildError."""
    return load_engine(stack, out / ENGINES / stack, profile, CudaDevice(), graphs)


def precision_of(out: Path, stack: str, profile: EngineProfile) -> str:
    """Which bounds hold for a compiled engine: its quantisation where it has one, else its dtype."""
    config = json.loads((out / ENGINES / stack / CONFIG_FILE).read_text("utf-8"))
    algorithm = (config["pretrained_config"].get("quantization") or {}).get("quant_algo")
    return str(algorithm).lower() if algorithm else profile.dtype
