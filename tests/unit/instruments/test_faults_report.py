"""The page on failures shows what the stored run measured, and nothing else."""

import json
from pathlib import Path

from scripts.faults_report import page_with_table

ROOT = Path(__file__).parents[3]


def test_the_page_is_that_of_the_stored_result():
    page = (ROOT / "docs/failures.md").read_text("utf-8")
    result = json.loads((ROOT / "benchmarks/results/faults_cpu.json").read_text("utf-8"))
    assert page_with_table(page, result) == page, "run: make faults, or python -m scripts.faults_report"
    assert len(result["rows"]) > 20
