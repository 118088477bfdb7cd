"""PNG plots of stored results of ``benchmarks.gpu``: frame time, share of the floor, first audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.plots import curve, picture
from runtime.families.fun_audio_chat.config import FRAME_S

Result = Mapping[str, Any]
Row = Mapping[str, Any]
FRAME, FIRST_AUDIO = "frame, ", "first audio in process, "
STREAMS = " streams"


def rehearsed(result: Result) -> bool:
    """Whether the result only shows that the script ran."""
    return bool(result["size"] != "full" or not result.get("cuda"))


def heading(result: Result) -> str:
    """What the numbers hold for, in a line."""
    weights = f"{result['linear']} matrices{', fused' * result['fused']}"
    marks = f"{'REHEARSAL, no figures: ' * rehearsed(result)}{'UNFINISHED: ' * (not result.get('finished', True))}"
    return f"{marks}{result['device']}, {result['size']} sizes, {weights}"


def baseline(result: Result) -> str:
    """Name of the baseline: it runs on our quantised matrices where those were measured."""
    return "naive baseline" if result["linear"] == "dense" else f"naive baseline, our {result['linear']} matrices"


def draw(result: Result, folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Draws what the result has; yields title and file name of each plot."""
    for key, (title, paint, rows_of) in PLOTS.items():
        if not rows_of(result):
            continue
        file = f"{name}_{key}.png"
        picture(folder / file, f"{title}\n{heading(result)}", partial(paint, result), title_size=8)
        yield title, file


def frames(result: Result) -> list[tuple[int, Row]]:
    """Rows of whole frames by their number of streams."""
    rows = (row for row in result.get("rows", ()) if row["name"].startswith(FRAME))
    return sorted((int(row["name"].removeprefix(FRAME).removesuffix(STREAMS)), row) for row in rows)


def floor_ms(result: Result, row: Row) -> float | None:
    """Milliseconds that the row takes at least; results that do not say so themselves know bytes only."""
    if "floor_ms" in row:
        return float(row["floor_ms"])
    if row.get("floor_percent") is None or "bandwidth" not in result:
        return None
    return float(1000 * row["floor_bytes"] / result["bandwidth"])


def floored(result: Result) -> list[Row]:
    """Rows that have a floor."""
    return [row for row in result.get("rows", ()) if row.get("floor_percent") is not None]


def spoken(result: Result) -> list[Row]:
    """Rows of the time to first audio."""
    return [row for row in result.get("rows", ()) if row["name"].startswith(FIRST_AUDIO)]


def _frame_time(result: Result, axes: Any) -> None:
    points = frames(result)
    curve(axes, [(count, row["ms"]) for count, row in points], label="measured")
    curve(axes, [(count, floor_ms(result, row)) for count, row in points], "--", marker="", label="floor")
    curve(axes, [(count, row.get("naive_ms")) for count, row in points], marker="s", label=baseline(result))
    axes.axhline(1000 * FRAME_S, color="grey", linewidth=1, label="real time")
    axes.set_xlabel("streams")
    axes.set_ylabel("ms of a frame")
    axes.set_yscale("log")


def _floor_share(result: Result, axes: Any) -> None:
    rows = floored(result)[::-1]
    axes.barh([row["name"] for row in rows], [row["floor_percent"] for row in rows])
    axes.set_xlabel("% of the floor of bytes or arithmetic")
    axes.tick_params(axis="y", labelsize=6)


def _first_audio(result: Result, axes: Any) -> None:
    rows = spoken(result)
    bars = axes.bar([row["name"].removeprefix(FIRST_AUDIO) for row in rows], [row["ms"] for row in rows], width=0.5)
    axes.bar_label(bars, fmt="%.0f")
    axes.set_ylabel("ms to first audio")
    axes.margins(y=0.1)  # for the numbers on top


#: Key of the file -> title, what paints it, its rows: a result without any has no such plot.
PLOTS: Mapping[str, tuple[str, Callable[[Result, Any], None], Callable[[Result], Sequence[Any]]]] = {
    "frame_time": ("Time of a frame by streams", _frame_time, frames),
    "floor_share": ("Share of the floor by part", _floor_share, floored),
    "first_audio": ("First audio in process, 3 s question", _first_audio, spoken),
}
