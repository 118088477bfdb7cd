"""One measurement as one JSON document, and as the table that people read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.record import load_average, machine
from benchmarks.server import GPU_MEMORY, scrape
from client.request import DEFAULT_RATE

SHOWN = ("first_text_ms", "first_audio_ms", "gap_ms", "total_ms")
FORMAT = 1  # of the document
# Of its numbers. 2: gaps of sound alone, time from the first request to the last response. 1, which is not written:
# gaps of S2T answers are between pieces of text, and a load's time counts waits before and pauses after them.
DEFINITIONS = 2


def document(tool: str, command: str, load_model: str, clips: Sequence[np.ndarray], **more: Any) -> dict[str, Any]:
    """A measurement without its levels.

    Args:
        tool: who sent the requests.
        command: that repeats it.
        load_model: in words.
        more: anything else worth keeping.
    """
    return {
        "format": FORMAT,
        "definitions": DEFINITIONS,
        "tool": tool,
        "command": command,
        "load_model": load_model,
        "machine": machine(),
        "busy_before": load_average(),
        "clips_s": [round(len(clip) / DEFAULT_RATE, 2) for clip in clips],
        **more,
        "levels": [],
    }


def add_level(run: dict[str, Any], measure: Callable[[], dict[str, Any]], metrics_url: str) -> None:
    """Measures one level and prints its row."""
    before = load_average()
    made = measure()
    made["busy"] = [before, load_average()]
    memory = scrape(metrics_url).get(GPU_MEMORY)
    made["gpu_memory_bytes"] = memory or None
    run["levels"].append(made)
    print(row(made), flush=True)


def header() -> str:
    """Heads of the table's columns."""
    names = ("text", "audio", "gap", "total")
    cells = " ".join(f"{f'{name} p50/p95 ms':>20}" for name in names)
    return f"{'load':<22} {'requests':>8} {'errors':>6} {cells} {'answers/s':>9} {'silent':>7}"


def row(made: dict[str, Any]) -> str:
    """One level as a line."""
    cells = " ".join(f"{_cell(made[name]):>20}" for name in SHOWN)
    listeners = made["underruns"]["listeners"]
    silent = f"{made['underruns']['with_silence']}/{listeners}" if listeners else "-"
    rate = made["throughput_per_s"]
    return (
        f"{made['load']:<22} {made['requests']:>8} {made['errors']:>6} {cells} "
        f"{'-' if rate is None else format(rate, '9.2f'):>9} {silent:>7}"
    )


def summary(run: dict[str, Any]) -> str:
    """The document as one line of JSON, without the single gaps."""
    levels = [{name: value for name, value in made.items() if name != "gaps"} for made in run["levels"]]
    return json.dumps({**run, "levels": levels})


def _cell(values: dict[str, float | None]) -> str:
    return "-" if values["p50"] is None else f"{values['p50']:.0f} / {values['p95']:.0f}"
