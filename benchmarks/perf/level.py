"""Many outcomes at one load as one level of a report: counts and percentiles, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.perf.outcome import Outcome

PERCENTILES = (50, 90, 95, 99)
MAX_GAPS = 2000  # of a level, kept for the plot of their distribution
CLOSED, POISSON, LISTENERS = "concurrency", "request_rate", "listeners"
UNITS = {CLOSED: "requests at once", POISSON: "requests/s (Poisson)", LISTENERS: "listeners"}


def percentiles(values: Iterable[float | None]) -> dict[str, float | None]:
    """p50, p90, p95 and p99 of the values that exist; each None when there are none."""
    found = [value for value in values if value is not None]
    if not found:
        return {f"p{rank}": None for rank in PERCENTILES}
    ranks = np.percentile(found, PERCENTILES)
    return {f"p{rank}": round(float(value), 3) for rank, value in zip(PERCENTILES, ranks, strict=True)}


def level(
    kind: str, value: float, outcomes: Sequence[Outcome], seconds: float, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """One level.

    Args:
        kind: `concurrency`, `request_rate` or `listeners`.
        value: how many, or how many per second.
        seconds: from the first request to the last response.
    """
    complete = [item for item in outcomes if item.complete]
    spoken = [item for item in outcomes if item.audio_s]
    gaps = [gap for item in complete for gap in item.gaps_ms]
    return {
        "load": f"{kind} {value:g}",
        "kind": kind,
        "value": value,
        "parameters": dict(parameters),
        "requests": len(outcomes),
        "errors": sum(bool(item.error) for item in outcomes),
        "error_kinds": dict(Counter(item.error for item in outcomes if item.error)),
        "cancelled": sum(item.cancelled for item in outcomes),
        "seconds": round(seconds, 3),
        "arrivals_per_s": _arrivals([item.sent_s for item in outcomes]),
        "throughput_per_s": round(len(complete) / seconds, 4) if seconds else None,
        "audio_s_per_s": round(sum(item.audio_s for item in outcomes) / seconds, 4) if seconds else None,
        "first_audio_ms": percentiles(item.first_audio_ms for item in outcomes),
        "first_text_ms": percentiles(item.first_text_ms for item in outcomes),
        "gap_ms": percentiles(gaps),
        "total_ms": percentiles(item.total_ms for item in outcomes),
        "real_time_factor": percentiles(item.real_time_factor for item in complete),
        "underruns": {
            "listeners": len(spoken),
            "with_silence": sum(bool(item.silences_ms) for item in spoken),
            "silences": sum(len(item.silences_ms) for item in spoken),
            "silence_ms": percentiles(silence for item in spoken for silence in item.silences_ms),
            "silence_share": _share(spoken),
        },
        "gaps": [round(gap, 2) for gap in _thinned(gaps)],
    }


def _arrivals(sent: Sequence[float]) -> float | None:
    """Requests per second as they really came.

    perf_analyzer draws its Poisson times with a fixed seed whose first intervals are long: 40 requests come
    at 0.7 of the rate asked for, 400 at 0.99.
    """
    span = max(sent, default=0.0) - min(sent, default=0.0)
    return round((len(sent) - 1) / span, 4) if span else None


def _share(spoken: Sequence[Outcome]) -> float | None:
    """Silence per time of listening."""
    silence = sum(sum(item.silences_ms) for item in spoken) / 1000
    sound = sum(item.audio_s for item in spoken)
    return round(silence / (silence + sound), 5) if sound else None


def _thinned(values: Sequence[float]) -> Sequence[float]:
    """At most MAX_GAPS of the sorted values, evenly over their ranks."""
    ordered = sorted(values)
    if len(ordered) <= MAX_GAPS:
        return ordered
    return [ordered[int(rank)] for rank in np.linspace(0, len(ordered) - 1, MAX_GAPS)]


def failed_level(kind: str, value: float, requests: int, error: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A level that could not be measured: every request counts as an error."""
    outcomes = [Outcome(str(parameters.get("mode", "s2s")), error=error)] * requests
    return level(kind, value, outcomes, 0.0, parameters)
