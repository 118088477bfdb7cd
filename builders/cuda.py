"""What target ``cuda`` sets besides the files that it shares with ``cpu``: precision, capacity, placement."""

from __future__ import annotations

from builders.placement import ONE_GPU, TWO_GPUS, Placement
from runtime.engines.options import CUDA, EngineOptions

# 704 KiB of KV per position in bf16: 33 GiB for the pool, which leaves an 80 GB GPU room for the weights (18 GiB)
# and for token2wav. Not yet tried on one.
KV_POSITIONS = 49152
MAX_STREAMS = 64


def cuda_engine(linear: str) -> EngineOptions:
    """Engine options of the target."""
    return EngineOptions(
        max_streams=MAX_STREAMS, kv_positions=KV_POSITIONS, dtype="bfloat16", device=CUDA, linear=linear
    )


def cuda_placement(token2wav_apart: bool) -> Placement:
    """Which model runs on which GPU."""
    return TWO_GPUS if token2wav_apart else ONE_GPU
