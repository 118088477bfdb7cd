"""Names of what runs a graph."""

from __future__ import annotations

AUTO, ONNX, TORCH, TENSORRT = "auto", "onnx", "torch", "tensorrt"
ENGINES = (AUTO, ONNX, TORCH)  # choices on target ``cuda``; ``auto`` is ONNX Runtime where it has its CUDA provider


def check_engine(engine: str) -> None:
    """Raises ValueError for a choice that there is not."""
    if engine not in ENGINES:
        raise ValueError(f"engine: {engine!r} is not one of {', '.join(ENGINES)}")
