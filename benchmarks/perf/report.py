"""A report of stored runs: one Markdown page and its plots. Reads JSON, measures nothing."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.perf.plots import draw
from benchmarks.perf.run import FORMAT
from benchmarks.perf.tables import comparison, number, run_section, table
from client.errors import ChatError

REPORT = "report.md"
INTRODUCTION = (
    "First text and first audio: from sending the request to the first response that carries text, or sound. "
    "Gap: between one piece of sound and the next. Real-time factor: time to the last response per second of sound. "
    "Silence: what a listener hears who plays every sample the moment it arrives, without a buffer."
)


def read_run(path: Path) -> dict[str, Any]:
    """A stored run.

    Raises:
        ChatError: the file is missing or no run of this format.
    """
    return read_stored(path, ("format", FORMAT), "save one with --save")


def read_stored(path: Path, mark: tuple[str, Any], remedy: str) -> dict[str, Any]:
    """A stored JSON object.

    Args:
        mark: a key and its value, by which files of this kind are known.

    Raises:
        ChatError: the file is missing or of another kind.
    """
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ChatError("NOT_FOUND", "report", f"{path} cannot be read ({type(error).__name__})") from error
    key, value = mark
    if not isinstance(stored, dict) or stored.get(key) != value:
        raise ChatError("INVALID_ARG", "report", f"{path} is no result with {key} {value!r}; {remedy}")
    return stored


def write(paths: Sequence[Path], folder: Path, command: str) -> int:
    """Writes page and plots into the folder; returns the exit status.

    Raises:
        ChatError: no run is named, or one of them cannot be read.
    """
    if not paths:
        problem = f"no stored run is named for {folder}; store one there first: make perf, or make perf-load"
        raise ChatError("NOT_FOUND", "report", problem)
    runs = [read_run(path) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    page = ["# Measurements", "", f"Redrawn by `{command}`.", "", INTRODUCTION, ""]
    for run, name in zip(runs, _names(paths), strict=True):
        page += run_section(run, name)
        page += _agreement(run)
        page += [f"![{title}]({file})\n" for title, file in draw(run, name, folder)]
    (folder / REPORT).write_text("\n".join(page).rstrip() + "\n", "utf-8")
    print(folder / REPORT)
    return 0


def print_comparison(before: Path, after: Path) -> int:
    """Prints the ratios of two runs; returns the exit status."""
    print("\n".join(comparison(read_run(before), read_run(after))))
    return 0


def _names(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each run, fit for links: its file's, with a number where two files have the same."""
    names: list[str] = []
    for path in paths:
        name = stem = re.sub(r"[^\w.-]+", "-", path.stem)
        numbers = itertools.count(2)
        while name in names:
            name = f"{stem}-{next(numbers)}"
        names.append(name)
    return names


def _agreement(run: dict[str, Any]) -> list[str]:
    if "agreement" not in run:
        return []
    rows = [
        [pair["load"], number(pair["ratio"], 3), "yes" if pair["agree"] else "NO", str(pair["rounds"])]
        for pair in run["agreement"]
    ]
    return [*table(["load", "first audio p50, ours / perf_analyzer's", "within 10 %", "turns of each"], rows), ""]
