"""The audio encoder in torch on a device, behind the interface of its exported graph."""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.checkpoint.config import ModelConfig
from runtime.checkpoint.layout import encoder_shapes as weight_shapes
from runtime.checkpoint.weights import load_weights
from runtime.device_graphs import DeviceGraph, encoder_shapes
from runtime.frames.executor import executor_for
from runtime.models.audio_encoder import AudioEncoder


def device_encoder(checkpoint: Path, device: torch.device) -> DeviceGraph:
    """Float32 on ``device``, with weights of a Fun-Audio-Chat checkpoint.

    Raises:
        BuildError: a tensor is missing or mis-shaped.
    """
    executor = executor_for(device)
    config = ModelConfig.read(checkpoint)
    hidden = config.backbone.hidden_size
    weights = load_weights(checkpoint, weight_shapes(config.encoder, hidden), torch.float32)
    encoder = AudioEncoder(config.encoder, hidden).load(weights).eval().to(executor.device)
    return DeviceGraph(executor, encoder, ("groups",), encoder_shapes)
