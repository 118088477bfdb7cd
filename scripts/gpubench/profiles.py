"""Which kernels a frame spends its time in, as text."""

from __future__ import annotations

from collections.abc import Iterator

from torch.profiler import ProfilerActivity, profile

from gpubench.language import LanguageBench
from gpubench.language_rows import speaking
from gpubench.measure import Clock

STREAMS = (1, 64)
FRAMES, WARM_UPS = 4, 3
ROWS, NAME_WIDTH = 60, 100  # of a table


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
