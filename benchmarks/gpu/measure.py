"""Clocks and rows of the table. Every number comes from a run on the device that is named."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.gpu.floor import Floor
from benchmarks.record import gpus

WARM_UPS = 3
GPU_COPY_BYTES, CPU_COPY_BYTES = 4 << 30, 16 << 20
COPIES = 4  # queued together
RUNS_TOGETHER = 12  # timings of several calls each: answers still fit beside their prompts
NAIVE_RUNS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: milliseconds, what must be done at least (0: no floor), and the same work done naively.

    ``floor_bytes``: read at least. ``floor_flops``: multiplications and additions at least.
    """

    name: str
    ms: float
    floor_bytes: int = 0
    naive_ms: float | None = None
    note: str = ""
    floor_flops: int = 0


class Clock:
    """Medians of wall time with the device idle before and after; at most ``runs`` timings of each work."""

    def __init__(self, device: torch.device, runs: int) -> None:
        self._device, self.runs = device, runs

    def wait(self) -> None:
        """Until the device is idle."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def ms(self, work: Callable[[], object], repeat: int = 1, runs: int | None = None) -> float:
        """Milliseconds of one call; ``repeat`` calls are queued together, so that launches may overlap."""
        for _ in range(WARM_UPS if self._device.type == "cuda" else 1):
            work()
        times = []
        for _ in range(min(self.runs, runs or self.runs)):
            self.wait()
            began = time.perf_counter()
            for _ in range(repeat):
                work()
            self.wait()
            times.append((time.perf_counter() - began) / repeat)
        return 1000 * statistics.median(times)


def floor_of(device: torch.device, clock: Clock) -> Floor:
    """Of a device: a copy within its memory is always measured."""
    on_gpu = device.type == "cuda"
    source = torch.empty(GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = clock.ms(lambda: target.copy_(source), COPIES) / 1000
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    return Floor.of(name, (source.nbytes + target.nbytes) / seconds, on_gpu)


def card() -> str:
    """Clock of the processors, temperature and power as the driver tells them now; empty where it does not."""
    return "\n".join(gpus("clocks.sm,temperature.gpu,power.draw"))


def line(row: Measured, floor: Floor | None) -> str:
    """A row, for people."""
    percent = None if floor is None else floor.percent(row.ms, row.floor_bytes, row.floor_flops)
    naive, ratio = ("", "") if row.naive_ms is None else (f"{row.naive_ms:.3f}", f"{row.naive_ms / row.ms:.2f}")
    share = "" if percent is None else f"{percent:.0f} %"
    return f"{row.name:38} {row.ms:10.3f} {share:>8} {naive:>10} {ratio:>7}  {row.note}".rstrip()


def table(rows: list[Measured], floor: Floor | None) -> str:
    """The rows, for people."""
    return "\n".join(
        [f"{'':38} {'ms':>10} {'floor':>8} {'naive ms':>10} {'ratio':>7}", *(line(r, floor) for r in rows)]
    )


def record(row: Measured, floor: Floor | None) -> dict[str, Any]:
    """A row, for machines."""
    known = {} if floor is None else floor.facts(row.ms, row.floor_bytes, row.floor_flops)
    return asdict(row) | {"floor_percent": None} | known
