"""Plots of stored runs: latency, gaps, real-time factor, underruns, memory of the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.perf.level import UNITS
from benchmarks.plots import curve, picture

Run = Mapping[str, Any]
Levels = Sequence[Mapping[str, Any]]
LATENCIES = {"first_text_ms": "first text", "first_audio_ms": "first audio", "total_ms": "time to last"}
DRAWN = {"p50": "-", "p95": "--"}  # percentile -> line


def draw(run: Run, name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Draws what a run has; yields title and file name of each plot.

    Args:
        name: of the run, with which its file names begin: no other run of the page has it.
    """
    if run["tool"] == "agree":
        return
    for kind, levels in _by_kind(run["levels"]).items():
        for plot, (title, paint, has) in _PLOTS.items():
            if not any(map(has, levels)):
                continue
            file = f"{name}_{kind}_{plot}.png"
            picture(folder / file, f"{title}, {name}", partial(_paint, paint, levels, UNITS[kind]))
            yield f"{title} by {UNITS[kind]}, {name}", file


def _paint(paint: Callable[[Any, Levels], None], levels: Levels, unit: str, axes: Any) -> None:
    axes.set_xlabel(unit)
    paint(axes, levels)


def _by_kind(levels: Levels) -> dict[str, list[Mapping[str, Any]]]:
    """Levels of the first parameter set by the kind of load."""
    made: dict[str, list[Mapping[str, Any]]] = {}
    for item in levels:
        if item["parameters"] == levels[0]["parameters"]:
            made.setdefault(item["kind"], []).append(item)
    return made


def _latency(axes: Any, levels: Levels) -> None:
    for colour, (name, words) in enumerate(LATENCIES.items()):
        for rank, line in DRAWN.items():
            points = [(made["value"], made[name][rank]) for made in levels]
            curve(axes, points, line, color=f"C{colour}", label=f"{words} {rank}")
    axes.set_ylabel("ms")
    axes.set_yscale("log")


def _gaps(axes: Any, levels: Levels) -> None:
    for made in levels:
        gaps = made["gaps"]
        if gaps:
            axes.plot(gaps, [(rank + 1) / len(gaps) for rank in range(len(gaps))], label=made["load"])
    axes.set_xlabel("gap between chunks, ms")
    axes.set_ylabel("share of gaps that are shorter")
    axes.set_xscale("symlog", linthresh=1)


def _real_time(axes: Any, levels: Levels) -> None:
    for rank, line in DRAWN.items():
        curve(axes, [(made["value"], made["real_time_factor"][rank]) for made in levels], line, label=rank)
    axes.axhline(1.0, color="grey", linewidth=1)
    axes.set_ylabel("s per s of sound (below 1: faster than heard)")


def _underruns(axes: Any, levels: Levels) -> None:
    heard = [made for made in levels if made["underruns"]["listeners"]]
    shares = [100 * made["underruns"]["with_silence"] / made["underruns"]["listeners"] for made in heard]
    lengths = [100 * (made["underruns"]["silence_share"] or 0.0) for made in heard]
    values = [made["value"] for made in heard]
    curve(axes, zip(values, shares, strict=True), label="listeners who heard silence")
    curve(axes, zip(values, lengths, strict=True), "--", label="silence of the time of listening")
    axes.set_ylabel("%")
    axes.set_ylim(-2, 102)


def _gpu_memory(axes: Any, levels: Levels) -> None:
    points = [(made["value"], made["gpu_memory_bytes"] / 2**30) for made in levels if made.get("gpu_memory_bytes")]
    curve(axes, points, label="GPU memory")
    axes.set_ylabel("GiB")


#: Key of the file -> title, what paints it, whether a level has it.
_PLOTS: Mapping[str, tuple[str, Callable[[Any, Levels], None], Callable[[Mapping[str, Any]], Any]]] = {
    "latency": ("Latency", _latency, lambda made: made["total_ms"]["p50"]),
    "gaps": ("Gaps between chunks", _gaps, lambda made: made["gaps"]),
    "real_time": ("Real-time factor", _real_time, lambda made: made["real_time_factor"]["p50"]),
    "underruns": ("Underruns", _underruns, lambda made: made["underruns"]["listeners"]),
    "gpu_memory": ("GPU memory", _gpu_memory, lambda made: made.get("gpu_memory_bytes")),
}
