"""Page and plots of stored results of ``bench_gpu.py``. Reads JSON, measures nothing.

python scripts/bench_gpu_report.py benchmarks/results/gpu_*.json --to benchmarks/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpubench.plots import draw, floor_ms, heading
from gpubench.run import TOOL

from client.errors import ChatError
from client.perf.report import read_stored
from client.perf.tables import number, table

PAGE = "gpu.md"
COLUMNS = ("part", "ms", "floor, ms", "% of floor", "naive, ms", "naive / ours", "note")
FACTS = ("driver", "cuda", "torch", "triton", "commit")


def read_result(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        ChatError: the file is missing or no result of this bench.
    """
    return read_stored(path, ("tool", TOOL), "make one with make bench-gpu")


def section(result: dict[str, Any]) -> list[str]:
    """Facts, checks and the table of one result."""
    passed = [check["passed"] for check in result["checks"]]
    lines = [f"## {heading(result)}", "", ", ".join(f"{name} {result[name] or '-'}" for name in FACTS) + ".", ""]
    lines += [f"Checks passed: {sum(passed)} of {len(passed)}. Bandwidth: {result['bandwidth'] / 1e12:.3g} TB/s"]
    lines[-1] += f" ({result['bandwidth_source']})."
    if "sustained_streams" in result:
        lines[-1] += f" Real-time streams sustained without an underrun: {result['sustained_streams']}."
    return [*lines, "", *table(COLUMNS, [_cells(result, row) for row in result["rows"]]), ""]


def _cells(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    naive, has_floor = row["naive_ms"], row["floor_percent"] is not None
    return [
        row["name"],
        number(row["ms"], 3),
        number(floor_ms(result, row) if has_floor else None, 3),
        number(row["floor_percent"]),
        number(naive, 3),
        number(None if naive is None else naive / row["ms"], 2),
        row["note"],
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
    sys.exit(main())
