"""The page on failures shows what the stored run measured, and nothing else."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_stored_result():
    page = (ROOT / "docs/failures.md").read_text("utf-8")
    result = json.loads((ROOT / "benchmarks/results/faults_cpu.json").read_text("utf-8"))
    assert load_script("faults_report").page_with_table(page, result) == page, (
        "run: make faults, or scripts/faults_report.py"
    )
    assert len(result["rows"]) > 20
