"""Page and plots of stored results of ``bench_gpu.py``. Reads JSON, measures nothing.

python -m benchmarks.gpu.report benchmarks/results/gpu_*.json --to benchmarks/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.plots import baseline, draw, floor_ms, heading
from benchmarks.gpu.run import TOOL
from benchmarks.perf.report import read_stored
from benchmarks.perf.tables import number, table
from client.errors import ChatError
from client.protocol.command_line import run_command

PAGE = "gpu.md"
COLUMNS = ("part", "ms", "floor, ms", "% of floor", "bound", "% by a copy", "naive, ms", "naive / ours", "note")
FACTS = ("driver", "cuda", "torch", "triton", "commit")


def read_result(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        ChatError: the file is missing or no result of this bench.
    """
    return read_stored(path, ("tool", TOOL), "make one with make bench-gpu")


def section(result: dict[str, Any]) -> list[str]:
    """Facts, checks, what failed and the table of one result, which may be an older one or have ended early."""
    lines = [f"## {heading(result)}", "", ", ".join(f"{name} {result.get(name) or '-'}" for name in FACTS) + ".", ""]
    lines += [" ".join(_summary(result)), *_troubles(result), ""]
    return [*lines, *table(COLUMNS, [_cells(result, row) for row in result.get("rows", ())]), ""]


def _summary(result: dict[str, Any]) -> list[str]:
    passed = [check["passed"] for check in result.get("checks", ())]
    said = [f"Checks passed: {sum(passed)} of {len(passed)}."]
    if "bandwidth" in result:
        copied = result.get("copy_bandwidth")
        beside = f"; a copy there {_tera(copied)} TB/s" if copied else ""
        said.append(f"Bandwidth: {_tera(result['bandwidth'])} TB/s ({result['bandwidth_source']}){beside}.")
    if result.get("peak_flops"):
        said.append(f"Arithmetic: {_tera(result['peak_flops'])} bf16 TFLOP/s.")
    if "sustained_streams" in result:
        said.append(f"Real-time streams sustained without an underrun: {result['sustained_streams']}.")
    return [*said, f"Naive: {result.get('baseline') or baseline(result)}."]


def _troubles(result: dict[str, Any]) -> list[str]:
    """What a run could not do, a line each."""
    failed = [f"{check['name']}: {check.get('problem') or check['error']}" for check in result.get("checks", ())
              if not check["passed"]]  # fmt: skip
    broken = [f"{part}: {error['message']}" for part, error in result.get("errors", {}).items()]
    skipped = [f"{part}: {why}" for part, why in result.get("skipped", {}).items()]
    kinds = (("failed check", failed), ("failed part", broken), ("skipped", skipped))
    found = [f"* {kind}: {text}" for kind, texts in kinds for text in texts]
    return ["", *found] if found else []


def _tera(value: float) -> str:
    return f"{value / 1e12:.3g}"


def _cells(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    naive, percent = row.get("naive_ms"), row.get("floor_percent")
    return [
        row["name"],
        number(row["ms"], 3),
        number(floor_ms(result, row), 3),
        number(percent),
        row.get("bound") or "-",
        number(row.get("copy_percent")),
        number(naive, 3),
        number(None if naive is None else naive / row["ms"], 2),
        row.get("note", ""),
    ]


def write(paths: Sequence[Path], folder: Path) -> Path:
    """Writes page and plots into the folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Measurements on GPUs", "", "Redrawn by `make bench-gpu-report`.", ""]
    for path in paths:
        result = read_result(path)
        lines += section(result)
        lines += [f"![{title}]({file})\n" for title, file in draw(result, folder, path.stem)]
    page = folder / PAGE
    page.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    return page


def main() -> int:
    """Exit status 1 when a file is no result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="JSON", help="results of make bench-gpu")
    parser.add_argument("--to", type=Path, required=True, help="folder of the page and the plots")
    given = parser.parse_args()
    try:
        print(write(given.results, given.to))
    except ChatError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
