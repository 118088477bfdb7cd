"""PNG plots of stored runs. Needs matplotlib, which is loaded only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.perf.level import UNITS
from client.errors import ChatError

Run = Mapping[str, Any]
Levels = Sequence[Mapping[str, Any]]
SIZE_INCH, DPI = (6.4, 3.6), 110
LATENCIES = {"first_text_ms": "first text", "first_audio_ms": "first audio", "total_ms": "time to last"}
DRAWN = {"p50": "-", "p95": "--"}  # percentile -> line


def draw(run: Run, name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Draws what a run has; yields title and file name of each plot.

    Args:
        name: of the run, with which its file names begin: no other run of the page has it.
    """
    if run["tool"] == "agree":
        return
    plt = pyplot()
    for kind, levels in _by_kind(run["levels"]).items():
        for plot, (title, paint) in _PLOTS.items():
            if not _has(levels, plot):
                continue
            figure, axes = plt.subplots(figsize=SIZE_INCH)
            paint(axes, levels)
            axes.set_title(f"{title}, {name}")
            if plot != "gaps":
                axes.set_xlabel(UNITS[kind])
            file = f"{name}_{kind}_{plot}.png"
            finish(plt, figure, axes, folder / file)
            yield f"{title} by {UNITS[kind]}, {name}", file


def finish(plt: Any, figure: Any, axes: Any, file: Path) -> None:
    """Grid and legend, then the file. Without the library's version in it, the same numbers give the same file."""
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def pyplot() -> Any:
    """The plotting module, without a screen. Raises ChatError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ChatError(
            "NOT_FOUND", "matplotlib", "is not installed; run make setup or pip install matplotlib"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _by_kind(levels: Levels) -> dict[str, list[Mapping[str, Any]]]:
    """Levels of the first parameter set by the kind of load."""
    made: dict[str, list[Mapping[str, Any]]] = {}
    for item in levels:
        if item["parameters"] == levels[0]["parameters"]:
            made.setdefault(item["kind"], []).append(item)
    return made


def _has(levels: Levels, name: str) -> bool:
    wanted: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "latency": lambda made: made["total_ms"]["p50"],
        "gaps": lambda made: made["gaps"],
        "real_time": lambda made: made["real_time_factor"]["p50"],
        "underruns": lambda made: made["underruns"]["listeners"],
        "gpu_memory": lambda made: made.get("gpu_memory_bytes"),
    }
    return any(wanted[name](made) for made in levels)


def _latency(axes: Any, levels: Levels) -> None:
    for colour, (name, words) in enumerate(LATENCIES.items()):
        for rank, line in DRAWN.items():
            points = [(made["value"], made[name][rank]) for made in levels if made[name][rank] is not None]
            axes.plot(*_columns(points), line, marker="o", color=f"C{colour}", label=f"{words} {rank}")
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
        points = [(made["value"], made["real_time_factor"][rank]) for made in levels]
        axes.plot(*_columns([pair for pair in points if pair[1] is not None]), line, marker="o", label=rank)
    axes.axhline(1.0, color="grey", linewidth=1)
    axes.set_ylabel("s per s of sound (below 1: faster than heard)")


def _underruns(axes: Any, levels: Levels) -> None:
    heard = [made for made in levels if made["underruns"]["listeners"]]
    shares = [100 * made["underruns"]["with_silence"] / made["underruns"]["listeners"] for made in heard]
    lengths = [100 * (made["underruns"]["silence_share"] or 0.0) for made in heard]
    axes.plot([made["value"] for made in heard], shares, "-", marker="o", label="listeners who heard silence")
    axes.plot([made["value"] for made in heard], lengths, "--", marker="o", label="silence of the time of listening")
    axes.set_ylabel("%")
    axes.set_ylim(-2, 102)


def _gpu_memory(axes: Any, levels: Levels) -> None:
    points = [(made["value"], made["gpu_memory_bytes"] / 2**30) for made in levels if made.get("gpu_memory_bytes")]
    axes.plot(*_columns(points), "-", marker="o", label="GPU memory")
    axes.set_ylabel("GiB")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


_PLOTS: Mapping[str, tuple[str, Callable[[Any, Levels], None]]] = {
    "latency": ("Latency", _latency),
    "gaps": ("Gaps between chunks", _gaps),
    "real_time": ("Real-time factor", _real_time),
    "underruns": ("Underruns", _underruns),
    "gpu_memory": ("GPU memory", _gpu_memory),
}
