"""Which kernels a frame and a call of the flow spend their time in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.language_rows import speaking
from benchmarks.gpu.measure import Clock, Measured
from benchmarks.gpu.sound import MOST_IN_CALL, SoundBench
from runtime.contracts import ChunkFlag
from runtime.token2wav.flow.device_stage import wide

STREAMS = (1, 64)
FRAMES, WARM_UPS = 4, 3
ROWS, NAME_WIDTH = 60, 100  # of a table
SPOKEN = 25  # codes of a chunk of 1 s
#: Parts of the names of kernels that are looked at first: stores, position convolutions, attention, matrices.
KINDS = ("index", "conv", "_attend_blocks", "gemm", "_modulated_norm", "_pack_heads")


def profiled(bench: LanguageBench, clock: Clock, on_gpu: bool) -> Iterator[str]:
    """A table for each number of streams: kernels by their total time on the device (without a GPU: on the host)."""
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    for count in sorted({min(count, bench.options.max_streams) for count in STREAMS}):
        loop = speaking(bench, count)
        for _ in range(WARM_UPS):
            loop.step()
        clock.wait()
        with profile(activities=kinds) as found:
            for _ in range(FRAMES):
                loop.step()
            clock.wait()
        bench.clear()
        rows = found.key_averages().table(sort_by=key, row_limit=ROWS, max_name_column_width=NAME_WIDTH)
        yield f"{FRAMES} frames of {count} streams\n{rows}\n"


def flow_profile(sound: SoundBench, clock: Clock, on_gpu: bool) -> tuple[str, dict[str, float]]:
    """A table of the kernels of a flow call in mid-answer, and what share of its time some kinds of them take."""
    flags, tokens = [ChunkFlag.START, *[ChunkFlag.CONTINUE] * WARM_UPS], list(range(SPOKEN))
    for flag in flags:
        sound.speak([(stream, flag, tokens) for stream in range(MOST_IN_CALL)])
    clock.wait()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as found:
        sound.speak([(stream, ChunkFlag.CONTINUE, tokens) for stream in range(MOST_IN_CALL)])
        clock.wait()
    sound.release(range(MOST_IN_CALL))
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    averages = found.key_averages()
    rows = averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=NAME_WIDTH)
    times = [(event.key.lower(), float(getattr(event, key))) for event in averages]
    whole = sum(taken for _, taken in times) or 1.0
    shares = {kind: sum(t for name, t in times if kind in name) / whole for kind in KINDS}
    return f"one call of flow and vocoder, {MOST_IN_CALL} chunks\n{rows}\n", shares


@torch.inference_mode()
def store_rows(sound: SoundBench, clock: Clock) -> Iterator[Measured]:
    """What a step keeps of a call's blocks: as the stage does it, and in the numbers' own type."""
    cache = sound.flow._device_cache
    blocks = cache.blocks[0]
    own = torch.zeros_like(blocks[:, :1]).repeat(1, MOST_IN_CALL, *[1] * (blocks.dim() - 2))
    places = torch.full((MOST_IN_CALL,), cache.spare_block, device=blocks.device)
    for name, view in (("16 bytes", wide), ("the numbers' size", lambda x: x.flatten(2))):
        pair = view(blocks), view(own)
        work = partial(pair[0].index_copy_, 1, places, pair[1])
        yield Measured(f"keeping {MOST_IN_CALL} blocks, {name} at a time", clock.ms(work), 2 * own.nbytes)
