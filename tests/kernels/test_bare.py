"""Tests of kernels and GPU on a bare machine with torch, Triton and transformers: all of them are found and load."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.first_gpu.cuda import test_files as files_of

ROOT = Path(__file__).parents[2]
MISSING = (
    "soundfile", "soxr", "cffi", "tritonclient", "rapidjson", "grpc", "onnx", "onnxscript", "onnxruntime", "hypothesis",
    "matplotlib", "pytriton", "transformers",
)  # fmt: skip
PARTS = {"tests/gpu": 3, "tests/kernels": 10}  # folders, and how many of their files there are at least


def test_everything_is_collected(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor name in {MISSING!r}:\n    sys.modules[name] = None\n")
    files = [file for folder in ("gpu", "kernels") for file in files_of(ROOT, folder)]
    for folder, least in PARTS.items():
        assert sum(file.startswith(f"{folder}/") for file in files) >= least
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "--collect-only", "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    for file in files:
        assert f"{file}::" in done.stdout, file
