"""Arrays of the ``log_mel`` and ``audio_encoder`` contracts, in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.checkpoint.config import FeatureConfig, ModelConfig
from runtime.engines.options import CUDA
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.onnx_session import CUDA_PROVIDER, OnnxGraph, has_provider
from runtime.options import Options

if TYPE_CHECKING:
    from runtime.device_graphs import DeviceGraph

Arrays = dict[str, np.ndarray]


def log_mel_batch(arrays: Arrays, features: FeatureConfig) -> Arrays:
    """``audio`` and ``audio_lengths`` to ``mel``, ``mel_lengths`` and ``speech_frames``."""
    clips = np.split(arrays["audio"], np.cumsum(arrays["audio_lengths"])[:-1])
    mels = [log_mel(clip, features) for clip in clips]
    return {
        "mel": np.concatenate(mels, axis=1),
        "mel_lengths": np.array([mel.shape[1] for mel in mels], np.int32),
        "speech_frames": np.array([speech_frames(len(clip), features.sample_rate) for clip in clips], np.int32),
    }


def _session(options: Options, gpu: int) -> OnnxGraph | DeviceGraph:
    """The exported graph; on target cuda without ONNX Runtime's provider the torch module."""
    if options.target != CUDA or has_provider(CUDA_PROVIDER):
        return OnnxGraph(options.path(options.encoder.graph), options.threads)
    from runtime.models.device_encoder import device_encoder

    return device_encoder(ModelConfig.read(options.path(options.model)), gpu)


class EncoderStage:
    """The encoder over packed clips.

    Args:
        gpu: number of the GPU that the model was placed on; not used on target cpu.
    """

    def __init__(self, options: Options, gpu: int = 0) -> None:
        encoder = options.encoder
        self._shape = WindowShape(encoder.frames, encoder.groups, encoder.group_size)
        self._hidden, self._max_windows = encoder.hidden, encoder.max_windows
        self._session = _session(options, gpu)

    def _graph(self, mel: np.ndarray, frames: np.ndarray, keep: np.ndarray) -> np.ndarray:
        return self._session.run({"mel": mel, "frames": frames, "keep": keep})["groups"]

    def run(self, arrays: Arrays) -> Arrays:
        """``mel``, ``mel_lengths`` and ``speech_frames`` to ``audio_embeds`` and ``audio_embed_lengths``."""
        mels = np.split(arrays["mel"], np.cumsum(arrays["mel_lengths"])[:-1], axis=1)
        embeds = encode_clips(mels, arrays["speech_frames"].tolist(), self._shape, self._graph, self._max_windows)
        rows = [part for part in embeds if len(part)]
        return {
            "audio_embeds": np.concatenate(rows) if rows else np.zeros((0, self._hidden), np.float32),
            "audio_embed_lengths": np.array([len(part) for part in embeds], np.int32),
        }
