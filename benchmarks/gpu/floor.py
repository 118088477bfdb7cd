"""The least time that work can take: bytes over bandwidth, or arithmetic over the peak of the tensor cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

BYTES, ARITHMETIC = "bytes", "arithmetic"
COPIED = "measured by a copy"
# Makers' figures: bytes per second, and dense bf16 operations per second. The first name that fits counts; a device
# that is not listed (GH200 among them: there are two) is measured against its own copy speed.
DEVICES = {
    "H200 NVL": (4.8e12, 835e12),
    "H200": (4.8e12, 989e12),
    "H100 PCIe": (2.0e12, 756e12),
    "H100 NVL": (3.9e12, 835e12),
    "H100": (3.35e12, 989e12),
    "A100-SXM4-80GB": (2.039e12, 312e12),
    "A100 80GB": (1.935e12, 312e12),
    "A100": (1.555e12, 312e12),
}
SLICED = "MIG"  # in the name of a part of a device, for which no figure of the whole holds


def maker_figures(name: str) -> tuple[str, float, float] | None:
    """The listed name within a device's name, its bytes and its bf16 operations per second."""
    if SLICED in name.split():
        return None
    for part, figures in DEVICES.items():
        if re.search(rf"\b{re.escape(part)}\b", name):
            return (part, *figures)
    return None


@dataclass(frozen=True, slots=True)
class Floor:
    """Bytes per second that a device can read at most, and where the figure comes from.

    ``peak_flops``: dense bf16 operations per second, None when unknown. ``copy_bandwidth``: bytes read and written per
    second by a copy here, None where it was not measured.
    """

    bandwidth: float
    source: str
    peak_flops: float | None = None
    copy_bandwidth: float | None = None

    @classmethod
    def of(cls, name: str, copied: float, on_gpu: bool) -> Floor:
        """The maker's figures for a known device, else the speed of a copy. ``copied``: see ``copy_bandwidth``."""
        found, measured = maker_figures(name) if on_gpu else None, copied if on_gpu else None
        if found is None:
            return cls(copied, COPIED, None, measured)
        return cls(found[1], f"maker's figure for {found[0]}", found[2], measured)

    def bound(self, size: int, flops: int = 0) -> tuple[float, str] | None:
        """Milliseconds that bytes and arithmetic take at least, and which of them it is; None: no floor."""
        bounds = [(1000 * size / self.bandwidth, BYTES)]
        if self.peak_flops:
            bounds.append((1000 * flops / self.peak_flops, ARITHMETIC))
        found = max(bounds)
        return found if found[0] else None

    def percent(self, ms: float, size: int, flops: int = 0) -> float | None:
        """The floor over the time taken, in percent; None where there is no floor."""
        found = self.bound(size, flops)
        return None if found is None else 100 * found[0] / ms

    def facts(self, ms: float, size: int, flops: int = 0) -> dict[str, Any]:
        """Floor of a row; ``copy_percent``: time to read the bytes at the speed of a copy over the time taken."""
        found = self.bound(size, flops)
        if found is None:
            return {}
        copied = None if not self.copy_bandwidth or not size else 100 * (1000 * size / self.copy_bandwidth) / ms
        return {"floor_ms": found[0], "bound": found[1], "floor_percent": 100 * found[0] / ms, "copy_percent": copied}
