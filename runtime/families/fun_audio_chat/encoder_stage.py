"""Arrays of the ``log_mel`` and ``audio_encoder`` contracts, in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.families.fun_audio_chat.config import FeatureConfig
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.graphs.memory import HostMemory, Memory, TorchMemory
from runtime.graphs.onnx import OnnxGraph
from runtime.graphs.shapes import Profile, Span, profile_of
from runtime.options import TENSORRT, TORCH, EncoderOptions, Options

Arrays = dict[str, Any]


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
    """The exported encoder over packed clips.

    Args:
        options: of the rendered folder.
        gpu: number of the GPU, where there is one.
    """

    def __init__(self, options: Options, gpu: int = 0) -> None:
        encoder = options.encoder
        self._shape = WindowShape(encoder.frames, encoder.groups, encoder.group_size)
        self._hidden, self._max_windows = encoder.hidden, encoder.max_windows
        self._memory: Memory = TorchMemory(f"cuda:{gpu}") if options.sound_engine == TENSORRT else HostMemory()
        self._run = _open(options, self._memory, gpu)

    def _graph(self, mel: np.ndarray, frames: np.ndarray, keep: np.ndarray) -> np.ndarray:
        arrays = {"mel": mel, "frames": frames, "keep": keep}
        found = self._run({name: self._memory.put(array) for name, array in arrays.items()})
        return self._memory.take(found["groups"])

    def run(self, arrays: Arrays) -> Arrays:
        """``mel``, ``mel_lengths`` and ``speech_frames`` to ``audio_embeds`` and ``audio_embed_lengths``."""
        mels = np.split(arrays["mel"], np.cumsum(arrays["mel_lengths"])[:-1], axis=1)
        embeds = encode_clips(mels, arrays["speech_frames"].tolist(), self._shape, self._graph, self._max_windows)
        rows = [part for part in embeds if len(part)]
        return {
            "audio_embeds": np.concatenate(rows) if rows else np.zeros((0, self._hidden), np.float32),
            "audio_embed_lengths": np.array([len(part) for part in embeds], np.int32),
        }


def encoder_profile(encoder: EncoderOptions, features: FeatureConfig) -> Profile:
    """Every shape that the encoder's graph is asked for."""
    windows = Span(1, 1, encoder.max_windows)
    return profile_of(
        {"mel": (windows, features.num_mel_bins, encoder.frames), "frames": (windows,), "keep": (windows,)}
    )


def _open(options: Options, memory: Memory, gpu: int) -> Callable[[Arrays], Arrays]:
    path = options.path(options.encoder.graph)
    if options.sound_engine == TORCH:
        from runtime.families.fun_audio_chat.device_encoder import device_encoder
        from runtime.graphs.executor import gpu_device  # late: it needs torch

        profile, engine = encoder_profile(options.encoder, options.features), options.encoder.engine
        return device_encoder(options.path(options.model), path, gpu_device(gpu), profile, engine).run
    if not isinstance(memory, TorchMemory):
        return OnnxGraph(path, options.threads).run
    from runtime.graphs.plan import PLAN_SUFFIX, open_plan  # late: it needs torch

    return open_plan(path.with_suffix(PLAN_SUFFIX), encoder_profile(options.encoder, options.features), memory).run
