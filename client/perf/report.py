"""A report of stored runs: one Markdown page and its plots. Reads JSON, measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.errors import ChatError
from client.perf.plots import draw
from client.perf.run import FORMAT
from client.perf.tables import comparison, number, run_section, table

REPORT = "report.md"
INTRODUCTION = (
    "First text and first audio: from sending the request to the first response that carries text, or sound. "
    "Gap: between one piece of sound and the next (of text where no sound was asked for). Real-time factor: time "
    "to the last response per second of sound. Silence: what a listener hears who plays every sample the moment "
    "it arrives, without a buffer."
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
    """Writes page and plots into the folder; returns the exit status."""
    runs = [read_run(path) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    plots = list(draw(runs, folder))
    page = ["# Measurements", "", f"Redrawn by `{command}`.", "", INTRODUCTION, ""]
    for run in runs:
        page += run_section(run)
        page += _agreement(run)
        page += [f"![{title}]({file})\n" for title, file in plots if file.startswith(f"{run['tool']}_")]
    (folder / REPORT).write_text("\n".join(page).rstrip() + "\n", "utf-8")
    print(folder / REPORT)
    return 0


def print_comparison(before: Path, after: Path) -> int:
    """Prints the ratios of two runs; returns the exit status."""
    print("\n".join(comparison(read_run(before), read_run(after))))
    return 0


def _agreement(run: dict[str, Any]) -> list[str]:
    if "agreement" not in run:
        return []
    rows = [
        [pair["load"], number(pair["ratio"], 3), "yes" if pair["agree"] else "NO", str(pair["rounds"])]
        for pair in run["agreement"]
    ]
    return [*table(["load", "first audio p50, ours / perf_analyzer's", "within 10 %", "turns of each"], rows), ""]
