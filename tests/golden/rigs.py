"""Engines over the golden checkpoint, with the sizes that their profiles declare."""

from __future__ import annotations

from functools import cache

import chat_data as data
import torch

from runtime.checkpoint.weights import load_weights
from runtime.engines.options import EngineOptions
from runtime.engines.torch_engine import TorchEngine
from runtime.engines.trtllm.spec import EngineProfile
from runtime.families.fun_audio_chat.profiles import backbone_profile, speech_profile
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK, SPEECH_STACK, backbone_shapes, speech_shapes

OPTIONS = EngineOptions(
    max_streams=4, max_positions=256, kv_positions=512, prefill_chunk=256, tokens_per_block=8, dtype="float32"
)
PROFILES = {
    "backbone": backbone_profile(data.config(), OPTIONS),
    "speech": speech_profile(data.config(), OPTIONS),
}


@cache
def golden_weights() -> dict[str, torch.Tensor]:
    config = data.config()
    return load_weights(config.directory, backbone_shapes(config) | speech_shapes(config), torch.float32)


def torch_engine(stack: str, profile: EngineProfile | None = None) -> TorchEngine:
    """A fresh engine: hidden states of all rows."""
    config, weights, shape = data.config(), golden_weights(), (profile or PROFILES[stack]).shape
    if stack == "backbone":
        head = [weights["language_model.lm_head.weight"]]
        return TorchEngine(config.backbone, shape, weights, BACKBONE, head)
    head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    return TorchEngine(config.speech_head, shape, weights, SPEECH_STACK, head)
