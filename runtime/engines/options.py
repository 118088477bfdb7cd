"""Capacity and precision of the language side. Plain data: importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float32", "bfloat16", "float16")
CPU, CUDA = "cpu", "cuda"  # devices, and targets of the same names; the third target is ``tensorrt``
DEVICES = (CPU, CUDA)
DENSE, INT8, FP8 = "dense", "int8", "fp8"
LINEARS = (DENSE, INT8, FP8)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Capacity of the language side.

    ``kv_positions`` backbone positions are shared by all streams; the speech head's cache holds
    ``group_size`` times as many. ``lead_s``: see ``runtime.scheduling.scheduler.Limits``. ``device``: ``cuda`` decides
    its frames on the device and runs one ahead (``runtime.frames``). ``linear``: how the stacks' matrices are
    stored, ``int8`` and ``fp8`` are weight-only and for ``cuda``. ``fused``: see ``kernels.fused``.
    ``graphs``: captured CUDA graphs that a compiled engine may keep, 0 for none (target ``tensorrt``).
    ``max_prefixes``: system messages whose keys and values are kept for the next streams, 0 for none.
    """

    max_streams: int = 16
    max_positions: int = 4096
    kv_positions: int = 65536
    prefill_chunk: int = 512
    tokens_per_block: int = 32
    lead_s: float = 1.5
    dtype: str = "float32"
    device: str = CPU
    linear: str = DENSE
    fused: bool = False
    max_prefixes: int = 8
    graphs: int = 0

    def __post_init__(self) -> None:
        for name, known in (("device", DEVICES), ("linear", LINEARS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.linear != DENSE and self.device != CUDA:
            raise ValueError(f"linear: {self.linear!r} needs device {CUDA}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is not one of {', '.join(DTYPES)}")
        for name in ("max_streams", "max_positions", "prefill_chunk", "tokens_per_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if self.graphs < 0:
            raise ValueError(f"graphs: {self.graphs} is negative")
        if self.kv_positions < self.max_positions:
            raise ValueError(f"kv_positions: {self.kv_positions} is less than max_positions {self.max_positions}")
