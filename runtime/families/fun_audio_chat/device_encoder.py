"""The audio encoder on a device, behind the interface of its exported graph: that graph, or torch."""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.checkpoint.weights import load_weights
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.encoder_sizes import encoder_calls, encoder_rule
from runtime.families.fun_audio_chat.tensors import encoder_shapes
from runtime.graphs.executor import executor_for
from runtime.graphs.onnx_cuda import onnx_graph, prefers_onnx
from runtime.graphs.options import TORCH
from runtime.graphs.recorded import DeviceGraph
from runtime.graphs.shapes import Profile


def device_encoder(
    checkpoint: Path, exported: Path, device: torch.device, profile: Profile, engine: str = TORCH
) -> DeviceGraph:
    """Float32 on ``device``, every size of calls recorded.

    Args:
        checkpoint: Fun-Audio-Chat directory. exported: the graph of its encoder.
        profile: what it will be asked for.
        engine: see ``EncoderOptions``.

    Raises:
        BuildError: a tensor is missing or mis-shaped, a file is missing, or there is no such engine here.
    """
    if prefers_onnx("encoder.engine", engine):
        graph = onnx_graph(exported, device, encoder_rule)
    else:
        config, executor = ModelConfig.read(checkpoint), executor_for(device)
        hidden = config.backbone.hidden_size
        weights = load_weights(checkpoint, encoder_shapes(config.encoder, hidden), torch.float32)
        encoder = AudioEncoder(config.encoder, hidden).load(weights).eval().to(executor.device)
        graph = DeviceGraph(executor, encoder, ("groups",), encoder_rule)
    graph.prepare(encoder_calls(profile))
    return graph
