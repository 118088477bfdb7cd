"""Writes the table of `docs/failures.md` from the JSON of `make faults`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from client.protocol.command_line import run_command

BEGIN, END = "<!-- table of make faults -->", "<!-- end of the table -->"
HEAD = "| what was done | times | what happened | seconds |\n|---|--:|---|--:|\n"
BESIDE = ("fault", "times", "happened", "seconds")


def row_of(row: dict[str, Any]) -> str:
    """One line; further numbers of a row stand behind what happened."""
    more = "; ".join(f"{name} {value}" for name, value in row.items() if name not in BESIDE)
    happened = f"{row['happened']} ({more})" if more else row["happened"]
    seconds = row["seconds"]
    span = (
        f"{min(seconds):.1f}" if len(seconds) == 1 else f"{min(seconds):.1f} to {max(seconds):.1f}" if seconds else ""
    )
    return f"| {row['fault']} | {row['times']} | {happened} | {span} |\n"


def page_with_table(page: str, result: dict[str, Any]) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{HEAD}{''.join(map(row_of, result['rows']))}{END}{after}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    page = given.page.read_text("utf-8")
    given.page.write_text(page_with_table(page, json.loads(given.result.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    sys.exit(run_command(main))
