"""The audio encoder as one ONNX graph over windows."""

from __future__ import annotations

from pathlib import Path

import torch

from builders.onnx_export import export_checked
from runtime.checkpoint.weights import load_weights
from runtime.families.fun_audio_chat.config import EncoderConfig, ModelConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.tensors import encoder_shapes

PROBE_FRAMES = (1, 2, 37, 200)  # windows of several fillings, so that masks and the lone row are exercised


def export_encoder(config: ModelConfig, path: Path) -> list[Path]:
    """Writes the graph: inputs mel, frames, keep; output groups (see ``AudioEncoder.forward``).

    Raises:
        BuildError: the graph disagrees with torch.
    """
    hidden = config.backbone.hidden_size
    weights = load_weights(config.directory, encoder_shapes(config.encoder, hidden), torch.float32)
    return export_loaded(AudioEncoder(config.encoder, hidden).load(weights), path)


def export_loaded(encoder: AudioEncoder, path: Path) -> list[Path]:
    """Writes the graph of an encoder that has its weights; returns its file."""
    windows = torch.export.Dim("windows", min=1, max=1 << 12)
    inputs = _probe(encoder.config)
    dims = {name: {0: windows} for name in inputs}
    return export_checked(encoder, inputs, dims, ["groups"], path)


def _probe(config: EncoderConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.tensor([min(f, config.window_frames) for f in PROBE_FRAMES])
    mel = torch.randn(len(frames), config.num_mel_bins, config.window_frames, generator=generator)
    mel = mel * (torch.arange(mel.shape[-1]) < frames[:, None])[:, None]
    return {"mel": mel, "frames": frames, "keep": torch.clamp((frames + 1) // 4, min=1)}
