"""What the two engines are compiled for. Plain data: no torch."""

from __future__ import annotations

from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.profiles import engine_profile
from runtime.engines.trtllm.spec import EngineProfile
from runtime.families.fun_audio_chat.config import ModelConfig

BACKBONE_ENGINE, SPEECH_ENGINE = "backbone", "srh"  # folders of a built folder


def backbone_profile(config: ModelConfig, options: EngineOptions) -> EngineProfile:
    """What the backbone is compiled for. Raises BuildError."""
    return engine_profile(config.backbone, options, 1, hidden_states=True)


def speech_profile(config: ModelConfig, options: EngineOptions) -> EngineProfile:
    """What the speech head is compiled for. Raises BuildError."""
    return engine_profile(config.speech_head, options, config.speech_ids.group_size, hidden_states=False)
