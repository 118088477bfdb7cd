"""The exported audio encoder behind the ``audio_encoder`` contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.checkpoint.features import FeatureConfig
from runtime.frontend.options import EncoderOptions
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.graphs.memory import HostMemory, Memory, TorchMemory
from runtime.graphs.onnx import OnnxGraph
from runtime.graphs.options import TENSORRT, TORCH
from runtime.graphs.shapes import Profile, Span, profile_of

Arrays = dict[str, Any]


class EncoderStage:
    """The exported encoder over packed clips.

    Args:
        graph: the exported file.
        model: the checkpoint with the weights.
        engine: what runs it: ONNX, TORCH or TENSORRT.
        threads: of ONNX Runtime.
        gpu: number of the GPU, where there is one.
    """

    def __init__(
        self,
        graph: Path,
        model: Path,
        encoder: EncoderOptions,
        features: FeatureConfig,
        engine: str,
        threads: int = 1,
        gpu: int = 0,
    ) -> None:
        self._shape = WindowShape(encoder.frames, encoder.groups, encoder.group_size)
        self._hidden, self._max_windows = encoder.hidden, encoder.max_windows
        self._memory: Memory = TorchMemory(f"cuda:{gpu}") if engine == TENSORRT else HostMemory()
        profile = encoder_profile(encoder, features)
        self._run: Callable[[Arrays], Arrays]
        if engine == TORCH:
            from runtime.families.fun_audio_chat.device_encoder import device_encoder
            from runtime.graphs.executor import gpu_device  # late: it needs torch

            self._run = device_encoder(model, graph, gpu_device(gpu), profile, encoder.engine).run
        elif isinstance(self._memory, TorchMemory):
            from runtime.graphs.plan import PLAN_SUFFIX, open_plan  # late: it needs torch

            self._run = open_plan(graph.with_suffix(PLAN_SUFFIX), profile, self._memory).run
        else:
            self._run = OnnxGraph(graph, threads).run

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
