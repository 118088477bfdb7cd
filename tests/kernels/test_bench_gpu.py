"""The GPU bench rehearsed on the CPU with tiny sizes: it runs to its end, and it notices a kernel that is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench_gpu_report import write
from gpubench.checks import run_checks
from gpubench.measure import Clock, Floor, Measured, table
from gpubench.plots import PLOTS, draw
from gpubench.sizes import full, tiny

from client.errors import ChatError
from client.perf.plots import pyplot
from kernels.gpu import decoder

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The result's path and what was printed.

    In a process of its own with nothing of ``.venv`` but torch, numpy and Triton: as on a bare machine.
    """
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('transformers', 'tokenizers', 'safetensors', 'yaml', 'jinja2', 'soundfile', 'soxr', 'onnx',\n"
        "             'onnxruntime', 'tqdm', 'tritonclient', 'matplotlib', 'grpc'):\n"
        "    sys.modules[name] = None\n"
    )
    command = [sys.executable, str(SCRIPTS / "bench_gpu.py"), "--tiny", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--json", str(folder / "gpu_tiny.json")],
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "gpu_tiny.json", done.stdout


def test_rehearsal(rehearsed):
    path, printed = rehearsed
    result = json.loads(path.read_text())
    assert result == json.loads(printed.splitlines()[-1])
    assert result["passed"] and len(result["checks"]) == 17 and result["commit"]
    names = [row["name"] for row in result["rows"]]
    for part in ("backbone step", "speech group", "frame", "prefill", "encoder", "flow", "vocoder", "first audio"):
        assert any(name.startswith(part) for name in names), part
    assert all(row["ms"] > 0 for row in result["rows"])
    assert all(row["naive_ms"] for row in result["rows"] if row["name"].startswith(("backbone", "speech", "frame")))
    assert "sustained_streams" in result


def test_page_and_plots_of_a_result(rehearsed, tmp_path):
    """Every row is on the page, every number of the first plot is a stored one, and a rehearsal is called one."""
    path, _ = rehearsed
    result = json.loads(path.read_text())
    text = write([path], tmp_path).read_text()
    for name in PLOTS:
        assert f"(gpu_tiny_{name}.png)" in text
        assert (tmp_path / f"gpu_tiny_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert all(f"| {row['name']} | {row['ms']:.3f} |" in text for row in result["rows"])
    assert "REHEARSAL, no figures" in text and "Checks passed: 17 of 17" in text
    axes = pyplot().figure().subplots()
    PLOTS["frame_time"][1](axes, result)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    rows = {int(row["name"].split()[1]): row for row in result["rows"] if row["name"].startswith("frame")}
    assert drawn["measured"] == [[count, rows[count]["ms"]] for count in (1, 3)]
    assert drawn["naive baseline"] == [[count, rows[count]["naive_ms"]] for count in (1, 3)]
    for count, ms in drawn["bandwidth floor"]:
        assert ms == pytest.approx(rows[count]["ms"] * rows[count]["floor_percent"] / 100)


def test_parts_that_were_left_out_are_not_drawn(rehearsed, tmp_path):
    path, _ = rehearsed
    result = json.loads(path.read_text())
    result["rows"] = [row for row in result["rows"] if not row["name"].startswith("first audio")]
    assert [file for _, file in draw(result, tmp_path, "x")] == ["x_frame_time.png", "x_floor_share.png"]


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(
        ChatError, match=r"other\.json is no result with tool 'bench_gpu'; make one with make bench-gpu"
    ):
        write([tmp_path / "other.json"], tmp_path)


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
