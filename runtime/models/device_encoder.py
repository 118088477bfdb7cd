"""The audio encoder of a checkpoint as a torch module on a GPU, behind the interface of the exported graph."""

from __future__ import annotations

import torch

from runtime.checkpoint.config import ModelConfig
from runtime.checkpoint.layout import encoder_shapes as weight_shapes
from runtime.checkpoint.weights import load_weights
from runtime.device_graphs import DeviceGraph, encoder_shapes
from runtime.frames.executor import Executor, executor_for
from runtime.models.audio_encoder import AudioEncoder
from runtime.token2wav.device_build import gpu_device


def device_encoder(config: ModelConfig, gpu: int) -> DeviceGraph:
    """float32 like the exported graph: it runs once per question. Raises BuildError."""
    return encoder_graph(config, executor_for(gpu_device(gpu)))


def encoder_graph(config: ModelConfig, executor: Executor) -> DeviceGraph:
    """The encoder on the executor's device. Raises BuildError."""
    hidden = config.backbone.hidden_size
    weights = load_weights(config.directory, weight_shapes(config.encoder, hidden), torch.float32)
    module = AudioEncoder(config.encoder, hidden).load(weights).to(executor.device)
    return DeviceGraph(executor, module, ("groups",), encoder_shapes)
