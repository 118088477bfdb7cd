"""Options of the audio encoder."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.graphs.options import AUTO, check_engine

ENCODER_GRAPH = "engines/audio_encoder.onnx"


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """The exported audio encoder: graph file, its window, most windows of one call.

    ``engine``: what runs it on target ``cuda``, ``onnx`` or ``torch``; ``auto`` is ``onnx`` where ONNX
    Runtime has its CUDA provider.
    """

    graph: str
    frames: int
    groups: int
    group_size: int
    hidden: int
    max_windows: int = 16
    engine: str = AUTO

    def __post_init__(self) -> None:
        check_engine(self.engine)
        if self.max_windows < 1:
            raise ValueError(f"max_windows: {self.max_windows} is below 1")
