"""Arrays of the ``log_mel`` and ``audio_encoder`` contracts, in and out."""

from __future__ import annotations

import numpy as np

from runtime.checkpoint.config import FeatureConfig
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.onnx_session import OnnxGraph
from runtime.options import Options

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


class EncoderStage:
    """The exported encoder over packed clips."""

    def __init__(self, options: Options) -> None:
        encoder = options.encoder
        self._shape = WindowShape(encoder.frames, encoder.groups, encoder.group_size)
        self._hidden, self._max_windows = encoder.hidden, encoder.max_windows
        self._session = OnnxGraph(options.path(encoder.graph), options.threads)

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
