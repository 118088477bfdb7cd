"""Does something grow? Robust fits over samples. Knows numbers only.

The warm-up is left out: pools fill, caches of code and memory arenas reach their size. After it a resource
grows by the median of its last quarter less the median of its first, so that neither a burst at an end nor
one high sample decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tests.endurance.watching import Sample

WARM_UP_S, WARM_UP_SHARE = 600.0, 0.2  # the shorter of the two
FIT_POINTS = 120  # of a slope; every pair of them counts


@dataclass(frozen=True, slots=True)
class Bounds:
    """Growth that is no leak.

    ``rss_mb``: of one process: arenas of malloc and of Python move by a few MB for ever. A leak of 1 kB per
    request passes it within an hour at five requests a second. ``fds``, ``threads``: of one process: a client that
    happened to be connected. ``shm_mb``: none; the backend's regions never shrink, so any trend shows.
    """

    rss_mb: float = 12.0
    shm_mb: float = 1.0
    fds: float = 4.0
    threads: float = 4.0


@dataclass(frozen=True, slots=True)
class Growth:
    """Per process, and the worst process of each kind."""

    rss_mb: dict[str, float]
    rss_mb_per_hour: dict[str, float]
    fds: dict[str, float]
    threads: dict[str, float]
    shm_mb: float

    def flaws(self, bounds: Bounds) -> list[str]:
        """Which bounds are passed, in words."""
        found = [f"rss of {name} grew by {by:g} MB" for name, by in self.rss_mb.items() if by > bounds.rss_mb]
        found += [f"fds of {name} grew by {by:g}" for name, by in self.fds.items() if by > bounds.fds]
        found += [f"threads of {name} grew by {by:g}" for name, by in self.threads.items() if by > bounds.threads]
        return found + ([f"shared memory grew by {self.shm_mb:g} MB"] if self.shm_mb > bounds.shm_mb else [])


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """The samples after the warm-up."""
    if not samples:
        return []
    begin = samples[0].at_s + min(WARM_UP_S, WARM_UP_SHARE * (samples[-1].at_s - samples[0].at_s))
    return [sample for sample in samples if sample.at_s >= begin]


def growth_of(samples: Sequence[Sample]) -> Growth:
    """What grew, over samples from which the warm-up is already taken."""
    names = sorted({name for sample in samples for name in sample.processes})

    def each(field: str, measure: Callable[[Sequence[float], Sequence[float]], float]) -> dict[str, float]:
        return {name: measure(*_series(samples, name, field)) for name in names}

    shm = [sample.shm_mb for sample in samples]
    return Growth(
        rss_mb=each("rss_mb", rise),
        rss_mb_per_hour=each("rss_mb", slope),
        fds=each("fds", rise),
        threads=each("threads", rise),
        shm_mb=rise([sample.at_s for sample in samples], shm),
    )


def rise(times: Sequence[float], values: Sequence[float]) -> float:
    """Median of the last quarter less that of the first."""
    quarter = len(values) // 4
    return round(median(values[-quarter:]) - median(values[:quarter]), 2) if quarter else 0.0


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Theil-Sen slope per hour: the median over all pairs of a thinned series."""
    step = max(1, len(values) // FIT_POINTS)
    x, y = np.array(times[::step]) / 3600, np.array(values[::step])
    i, j = np.triu_indices(len(x), 1)
    return round(float(np.median((y[j] - y[i]) / (x[j] - x[i]))), 2) if len(i) else 0.0


def _series(samples: Sequence[Sample], name: str, field: str) -> tuple[list[float], list[float]]:
    kept = [sample for sample in samples if name in sample.processes]
    return [s.at_s for s in kept], [getattr(s.processes[name], field) for s in kept]
