"""What was done to the server, how often, what happened, how long it took: one JSON file, and the table of a page."""

from __future__ import annotations

import json
import platform
import statistics
from pathlib import Path

from benchmarks.record import save

BEGIN, END = "<!-- table of make faults -->", "<!-- end of the table -->"
HEAD = "| what was done | times | what happened | seconds |\n|---|--:|---|--:|\n"
COLUMNS = ("fault", "times", "happened", "seconds")


class Record:
    """Rows by the name of the fault; a fault that is injected again adds to its row."""

    def __init__(self):
        self.rows = {}

    def add(self, fault, what, seconds=None, **facts):
        """One injection.

        Args:
            what: happened, in words.
            seconds: from the fault to the next spoken answer, or to the end of what the fault touched.
            facts: further numbers; a later injection replaces them.
        """
        row = self.rows.setdefault(fault, {"fault": fault, "times": 0, "happened": what, "seconds": []})
        row["times"] += 1
        row["happened"] = what
        if seconds is not None:
            row["seconds"].append(round(seconds, 2))
        row.update(facts)

    def save(self, path: Path, status: int):
        """Writes the file and returns the line that sums it up. Rows of faults that this run left out stay."""
        earlier = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = list(({row["fault"]: row for row in earlier} | self.rows).values())
        line = {
            "faults": len(rows),
            "injections": sum(row["times"] for row in rows),
            "failed": status,
            "slowest_recovery_s": max((max(row["seconds"], default=0) for row in rows), default=0),
            "median_recovery_s": statistics.median(s for row in rows for s in row["seconds"] or [0]),
            "machine": f"{platform.machine()}, target cpu, tiny checkpoint",
        }
        save({**line, "rows": rows}, path, indent=1)
        return line


def row_of(row):
    """One line of the table; further numbers of a row stand behind what happened."""
    more = "; ".join(f"{name} {value}" for name, value in row.items() if name not in COLUMNS)
    happened = f"{row['happened']} ({more})" if more else row["happened"]
    seconds = row["seconds"]
    ends = (min(seconds, default=0), max(seconds, default=0))[: len(seconds)]
    span = " to ".join(f"{value:.1f}" for value in ends)
    return f"| {row['fault']} | {row['times']} | {happened} | {span} |\n"


def page_with_table(page: str, rows):
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{HEAD}{''.join(map(row_of, rows))}{END}{rest.partition(END)[2]}"
