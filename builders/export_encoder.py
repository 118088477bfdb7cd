"""The audio encoder as one ONNX graph over windows, checked against torch when it is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from runtime.checkpoint.config import ModelConfig
from runtime.checkpoint.layout import encoder_shapes
from runtime.checkpoint.weights import load_weights
from runtime.errors import BuildError
from runtime.models.audio_encoder import AudioEncoder
from runtime.onnx_session import OnnxGraph

OPSET = 20
TOLERANCE = 1e-4  # absolute, float32, on embeddings of order one
PROBE_FRAMES = (1, 2, 37, 200)


def export_encoder(config: ModelConfig, path: Path) -> None:
    """Writes the graph: inputs mel, frames, keep; output groups (see ``AudioEncoder.forward``).

    Raises:
        BuildError: the graph disagrees with torch.
    """
    hidden = config.backbone.hidden_size
    weights = load_weights(config.directory, encoder_shapes(config.encoder, hidden), torch.float32)
    encoder = AudioEncoder(config.encoder, hidden).load(weights)
    inputs = _probe(config)
    windows = torch.export.Dim("windows", min=1)
    program = torch.onnx.export(
        encoder,
        inputs,
        dynamo=True,
        opset_version=OPSET,
        input_names=["mel", "frames", "keep"],
        output_names=["groups"],
        dynamic_shapes={"mel": {0: windows}, "frames": {0: windows}, "keep": {0: windows}},
        verbose=False,
    )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path))
    with torch.inference_mode():
        expected = encoder(*inputs).numpy()
    arrays = dict(zip(("mel", "frames", "keep"), (tensor.numpy() for tensor in inputs), strict=True))
    error = float(np.abs(OnnxGraph(path, threads=1).run(arrays)["groups"] - expected).max())
    if not error <= TOLERANCE:
        raise BuildError(path.name, f"differs from torch by {error:.2e}", f"at most {TOLERANCE:.0e} is allowed")


def _probe(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windows of several fillings, so that masks and the lone row are exercised."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.tensor([min(f, config.encoder.window_frames) for f in PROBE_FRAMES])
    mel = torch.randn(len(frames), config.encoder.num_mel_bins, config.encoder.window_frames, generator=generator)
    mel = mel * (torch.arange(mel.shape[-1]) < frames[:, None])[:, None]
    return mel, frames, torch.clamp((frames + 1) // 4, min=1)
