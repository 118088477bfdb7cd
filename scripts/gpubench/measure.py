"""Clocks, bandwidth floors and rows of the table. Every number comes from a run on the device that is named."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

WARM_UPS = 3
COPY_BYTES = 1 << 30
# Makers' figures in bytes per second; a device that is not listed is measured against its own copy speed.
BANDWIDTHS = {
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "A100-SXM4-80GB": 2.039e12,
    "A100 80GB": 1.935e12,
    "A100": 1.555e12,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: milliseconds, bytes that must be read at least (0: no floor), and the same work done naively."""

    name: str
    ms: float
    floor_bytes: int = 0
    naive_ms: float | None = None
    note: str = ""


class Clock:
    """Medians of wall time with the device idle before and after."""

    def __init__(self, device: torch.device, runs: int) -> None:
        self._device, self._runs = device, runs

    def wait(self) -> None:
        """Until the device is idle."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def ms(self, work: Callable[[], object], repeat: int = 1) -> float:
        """Milliseconds of one call; ``repeat`` calls are queued together, so that launches may overlap."""
        for _ in range(WARM_UPS if self._device.type == "cuda" else 1):
            work()
        times = []
        for _ in range(self._runs):
            self.wait()
            began = time.perf_counter()
            for _ in range(repeat):
                work()
            self.wait()
            times.append((time.perf_counter() - began) / repeat)
        return 1000 * statistics.median(times)


@dataclass(frozen=True, slots=True)
class Floor:
    """Bytes per second that a device can read at most, and where the figure comes from."""

    bandwidth: float
    source: str

    @classmethod
    def of(cls, device: torch.device, clock: Clock) -> Floor:
        """The maker's figure for a known device, else the speed of a copy here (bytes read and written)."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        for part, bandwidth in BANDWIDTHS.items():
            if part in name:
                return cls(bandwidth, f"maker's figure for {part}")
        size = COPY_BYTES if device.type == "cuda" else COPY_BYTES >> 6
        source = torch.empty(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return cls(2 * size / (clock.ms(lambda: target.copy_(source)) / 1000), "measured by a copy")

    def percent(self, row: Measured) -> float | None:
        """Time at full bandwidth over the time taken, in percent; None where there is no floor."""
        if not row.floor_bytes:
            return None
        return 100 * (1000 * row.floor_bytes / self.bandwidth) / row.ms


def table(rows: list[Measured], floor: Floor) -> str:
    """The rows, for people."""
    lines = [f"{'':38} {'ms':>10} {'floor':>8} {'naive ms':>10} {'ratio':>7}"]
    for row in rows:
        percent = floor.percent(row)
        naive, ratio = ("", "") if row.naive_ms is None else (f"{row.naive_ms:.3f}", f"{row.naive_ms / row.ms:.2f}")
        share = "" if percent is None else f"{percent:.0f} %"
        lines.append(f"{row.name:38} {row.ms:10.3f} {share:>8} {naive:>10} {ratio:>7}  {row.note}".rstrip())
    return "\n".join(lines)


def records(rows: list[Measured], floor: Floor) -> list[dict[str, Any]]:
    """The rows, for machines."""
    return [asdict(row) | {"floor_percent": floor.percent(row)} for row in rows]
