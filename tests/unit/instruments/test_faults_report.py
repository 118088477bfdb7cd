"""The table of `docs/failures.md` is the record of the last `make faults`."""

import json
from pathlib import Path

from record import page_with_table

ROOT = Path(__file__).parents[3]


def test_the_table_is_that_of_the_record():
    page = (ROOT / "docs/failures.md").read_text("utf-8")
    rows = json.loads((ROOT / "benchmarks/results/faults_cpu.json").read_text("utf-8"))["rows"]
    assert len(rows) > 20
    assert page_with_table(page, rows) == page, "run: make faults"
