"""Markdown tables of stored runs and of the ratios between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.perf.level import PERCENTILES
from benchmarks.perf.run import DEFINITIONS

TIMES = {
    "first_text_ms": "first text",
    "first_audio_ms": "first audio",
    "gap_ms": "gap between chunks",
    "total_ms": "time to last",
}
COMPARED = (*TIMES, "real_time_factor")
OLDER = (
    "measured by older definitions: gaps of S2T answers are between pieces of text, and rates count the wait before "
    "the first request and listeners' pauses after the last answer as time"
)

Run = Mapping[str, Any]


def run_section(run: Run, name: str) -> list[str]:
    """One run: what was done, then its levels. ``name``: of the run on its page."""
    machine = run["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    lengths = ", ".join(f"{seconds:g}" for seconds in run["clips_s"])
    facts = [
        f"* command: `{run['command']}`",
        f"* machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {gpus}; "
        f"Python {machine['python']}",
        f"* load model: {run['load_model']}",
        f"* questions of {lengths} s; server {run['server']}; load average before the run {run['busy_before']:g}",
        *([f"* note: {run['note']}"] if run.get("note") else []),
        *([f"* {OLDER}"] if _older(run) else []),
    ]
    title = name if name == run["tool"] else f"{run['tool']}, {name}"
    return [f"## {title}", "", *facts, "", *level_table(run["levels"]), "", *detail_table(run["levels"]), ""]


def level_table(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Percentiles of all times, one row per level."""
    ranks = " / ".join(f"p{rank}" for rank in PERCENTILES)
    rows = [
        [_load(made), str(made["requests"]), str(made["errors"]), *(_times(made[name]) for name in TIMES)]
        for made in levels
    ]
    return [f"Milliseconds, {ranks}:", "", *table(["load", "requests", "errors", *TIMES.values()], rows)]


def detail_table(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rates, silence and memory, one row per level."""
    names = ["load", "arrivals/s", "answers/s", "cancelled", "s of sound per s", "real-time factor p50 / p95",
             "listeners with silence", "silence of listening"]  # fmt: skip
    with_gpu = any(made.get("gpu_memory_bytes") for made in levels)
    rows = []
    for made in levels:
        silent, factor = made["underruns"], made["real_time_factor"]
        cells = [
            _load(made),
            number(made["arrivals_per_s"], 2),
            number(made["throughput_per_s"], 2),
            str(made["cancelled"]),
            number(made["audio_s_per_s"], 2),
            f"{number(factor['p50'], 2)} / {number(factor['p95'], 2)}",
            f"{silent['with_silence']} of {silent['listeners']}",
            "-" if silent["silence_share"] is None else f"{silent['silence_share']:.2%}",
        ]
        memory = made.get("gpu_memory_bytes")
        rows.append([*cells, number(memory / 2**30 if memory else None, 1)] if with_gpu else cells)
    return table([*names, "GPU memory, GiB"] if with_gpu else names, rows)


def comparison(before: Run, after: Run) -> list[str]:
    """Levels that both runs have, and the ratio of their medians and p95 (after / before)."""
    known = {_key(made): made for made in before["levels"]}
    rows = []
    for made in after["levels"]:
        other = known.get(_key(made))
        if other is None:
            continue
        for name in COMPARED:
            for rank in ("p50", "p95"):
                old, new = other[name][rank], made[name][rank]
                rows.append([_load(made), f"{name} {rank}", number(old, 2), number(new, 2), ratio(old, new)])
    if not rows:
        return ["The two runs have no level in common."]
    lines = table(["load", "quantity", "before", "after", "after / before"], rows)
    marks = [f"{name}: {OLDER}." for name, run in (("before", before), ("after", after)) if _older(run)]
    return [*lines, *(["", *marks] if marks else [])]


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; numbers to the right."""
    marks = ["---", *["--:"] * (len(names) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (names, marks, *rows)]


def number(value: float | None, digits: int = 0) -> str:
    """A number, or a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(before: float | None, after: float | None) -> str:
    """After / before, or a dash."""
    return f"{after / before:.2f}" if before and after is not None else "-"


def _older(run: Run) -> bool:
    """Whether its numbers may mean something else than today's: only our generator mixes modes and pauses."""
    mixed = run["tool"] == "load" or any(made["parameters"].get("mode") == "s2t" for made in run["levels"])
    return bool(mixed and run.get("definitions", 1) < DEFINITIONS)


def _times(values: Mapping[str, float | None]) -> str:
    return " / ".join(number(values[f"p{rank}"]) for rank in PERCENTILES) if values["p50"] is not None else "-"


def _load(made: Mapping[str, Any]) -> str:
    return str(made["load"]) + (" (s2t)" if made["parameters"].get("mode") == "s2t" else "")


def _key(made: Mapping[str, Any]) -> tuple[str, str]:
    return str(made["load"]), repr(sorted(made["parameters"].items()))
