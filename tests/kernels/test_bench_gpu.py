"""The GPU bench rehearsed on the CPU with tiny sizes: it runs to its end, and it notices a kernel that is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpubench.checks import run_checks
from gpubench.measure import Clock, Floor, Measured, table
from gpubench.sizes import full, tiny

from kernels.gpu import decoder

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_rehearsal(tmp_path):
    """In a process of its own with nothing of ``.venv`` but torch, numpy and Triton: as on a bare machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('transformers', 'tokenizers', 'safetensors', 'yaml', 'jinja2', 'soundfile', 'soxr', 'onnx',\n"
        "             'onnxruntime', 'tqdm', 'tritonclient'):\n"
        "    sys.modules[name] = None\n"
    )
    command = [sys.executable, str(SCRIPTS / "bench_gpu.py"), "--tiny", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "result.json")],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == json.loads(done.stdout.splitlines()[-1])
    assert result["passed"] and len(result["checks"]) == 15 and result["commit"]
    names = [row["name"] for row in result["rows"]]
    for part in ("backbone step", "speech group", "frame", "prefill", "encoder", "flow", "vocoder", "first audio"):
        assert any(name.startswith(part) for name in names), part
    assert all(row["ms"] > 0 for row in result["rows"])
    assert all(row["naive_ms"] for row in result["rows"] if row["name"].startswith(("backbone", "speech", "frame")))
    assert "sustained_streams" in result


def test_a_wrong_kernel_is_noticed(monkeypatch):
    right = decoder.swiglu
    monkeypatch.setattr(decoder, "swiglu", lambda x: right(x) * 1.01)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    failed = [check.name for check in run_checks(tiny(), device, torch.float32) if not check.passed]
    assert failed == ["SwiGLU"], "the fused matrix has a SwiGLU of its own"


def test_percent_of_the_floor():
    floor = Floor(1e12, "for this test")
    row = Measured("a", ms=2.0, floor_bytes=10**9, naive_ms=5.0)
    assert floor.percent(row) == pytest.approx(50.0)
    assert floor.percent(Measured("b", ms=2.0)) is None
    assert "50 %" in table([row], floor) and "2.50" in table([row], floor)
    assert Floor.of(torch.device("cpu"), Clock(torch.device("cpu"), 1)).source == "measured by a copy"


def test_full_sizes_are_the_released_ones():
    """Parameters as counted in the released files (model references): backbone 8190.7 M with both embeddings."""
    from math import prod

    from runtime.checkpoint.layout import backbone_shapes, speech_shapes

    model = full().model
    assert round(sum(map(prod, backbone_shapes(model).values())) / 1e6, 1) == 8190.7
    assert sum(map(prod, speech_shapes(model).values())) > 532e6
    assert full().flow.inner == 1024 and full().hift.frame_samples == 480
