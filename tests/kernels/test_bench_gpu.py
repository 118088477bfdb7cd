"""The GPU bench rehearsed on the CPU with tiny sizes: it runs to its end, and it notices a kernel that is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.checks import run_checks
from benchmarks.gpu.floor import Floor
from benchmarks.gpu.measure import Clock, Measured, floor_of, table
from benchmarks.gpu.parts import ASKED_FOR, PARTS
from benchmarks.gpu.plots import PLOTS, draw
from benchmarks.gpu.report import write
from benchmarks.plots import pyplot
from builders.released import full, tiny
from client.errors import ChatError
from kernels.gpu import decoder

SOME = ["norm with residual", "SwiGLU", "norm, matrix, SwiGLU", "sampler, ids"]  # comparisons; all take a minute

ROOT = Path(__file__).parents[2]
CHECKS = 65  # comparisons of kernels with their twins


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
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--json", str(folder / "gpu_tiny.json"), "--profile", str(folder / "profile.txt")],
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "gpu_tiny.json", done.stdout


def test_rehearsal(rehearsed):
    path, printed = rehearsed
    result = json.loads(path.read_text())
    assert result == json.loads(printed.splitlines()[-1])
    assert result["passed"] and len(result["checks"]) == CHECKS and result["commit"]
    names = [row["name"] for row in result["rows"]]
    for part in ("backbone step", "speech group", "frame", "prefill", "encoder", "flow", "vocoder", "first audio"):
        assert any(name.startswith(part) for name in names), part
    assert all(row["ms"] > 0 for row in result["rows"])
    assert all(row["naive_ms"] for row in result["rows"] if row["name"].startswith(("backbone", "speech", "frame")))
    assert "sustained_streams" in result and list(result["underruns"]) == ["2"]
    assert (
        result["finished"]
        and result["parts"] == [name for name in PARTS if name not in ASKED_FOR]
        and not result["errors"]
        and not result["skipped"]
    )
    assert all(f"{row['name']} " in printed for row in result["rows"])
    assert sorted(file.name for file in path.parent.glob("gpu_*")) == ["gpu_tiny.json"], "no half-written file is left"


def test_a_profile_names_what_a_frame_runs(rehearsed):
    text = (rehearsed[0].parent / "profile.txt").read_text()
    assert "4 frames of 1 streams" in text and "4 frames of 3 streams" in text and "aten::mm" in text


def test_page_and_plots_of_a_result(rehearsed, tmp_path):
    """Every row is on the page, every number of the first plot is a stored one, and a rehearsal is called one."""
    path, _ = rehearsed
    result = json.loads(path.read_text())
    text = write([path], tmp_path).read_text()
    for name in PLOTS:
        assert f"(gpu_tiny_{name}.png)" in text
        assert (tmp_path / f"gpu_tiny_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert all(f"| {row['name']} | {row['ms']:.3f} |" in text for row in result["rows"])
    assert "REHEARSAL, no figures" in text and f"Checks passed: {CHECKS} of {CHECKS}" in text
    axes = pyplot().figure().subplots()
    PLOTS["frame_time"][1](result, axes)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    rows = {int(row["name"].split()[1]): row for row in result["rows"] if row["name"].startswith("frame")}
    assert drawn["measured"] == [[count, rows[count]["ms"]] for count in (1, 3)]
    assert drawn["naive baseline"] == [[count, rows[count]["naive_ms"]] for count in (1, 3)]
    for count, ms in drawn["floor"]:
        assert ms == pytest.approx(rows[count]["ms"] * rows[count]["floor_percent"] / 100)


def test_parts_that_were_left_out_are_not_drawn(rehearsed, tmp_path):
    path, _ = rehearsed
    result = json.loads(path.read_text())
    result["rows"] = [row for row in result["rows"] if not row["name"].startswith("first audio")]
    assert [file for _, file in draw(result, tmp_path, "x")] == ["x_frame_time.png", "x_floor_share.png"]


def test_older_and_unfinished_results_have_pages_too(rehearsed, tmp_path):
    """An older one lacks what was added since; one that ended early may have nothing but its head."""
    result = json.loads(rehearsed[0].read_text())
    fresh = ("finished", "errors", "skipped", "baseline", "copy_bandwidth", "peak_flops", "parts", "seconds")
    older = {name: value for name, value in result.items() if name not in fresh}
    dropped = ("floor_ms", "bound", "copy_percent", "floor_flops")
    older["rows"] = [{key: value for key, value in row.items() if key not in dropped} for row in result["rows"]]
    head = {name: result[name] for name in ("tool", "size", "linear", "fused", "device")}
    begun = head | {
        "finished": False, "linear": "int8", "errors": {"frames": {"type": "A", "message": "A: b"}},
        "skipped": {"chunks": "late"}, "checks": [{"name": "c", "error": None, "passed": False, "problem": "B: d"}],
        "rows": [{"name": "frame, 1 streams", "ms": 2.0, "naive_ms": 3.0, "floor_percent": None}],
    }  # fmt: skip
    pages = []
    for name, stored in {"older": older, "head": head, "begun": begun}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(stored))
        pages.append(write([tmp_path / f"{name}.json"], tmp_path).read_text())
    for row in older["rows"]:
        least = 1000 * row["floor_bytes"] / older["bandwidth"] if row["floor_bytes"] else None
        assert f"| {row['name']} | {row['ms']:.3f} | {'-' if least is None else f'{least:.3f}'} |" in pages[0]
    assert "Checks passed: 0 of 0." in pages[1] and "UNFINISHED" not in pages[1]
    for text in ("UNFINISHED", "* failed part: frames: A: b", "* failed check: c: B: d", "* skipped: chunks: late",
                 "naive baseline, our int8 matrices", "| frame, 1 streams | 2.000 | - |"):  # fmt: skip
        assert text in pages[2]


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
    failed = [check.name for check in run_checks(tiny(), device, torch.float32, SOME) if not check.passed]
    assert failed == ["SwiGLU"], "the fused matrix has a SwiGLU of its own"


def test_a_kernel_that_cannot_run_stops_no_other_check(monkeypatch):
    def broken(x):
        raise RuntimeError("no code\nfor this device")

    monkeypatch.setattr(decoder, "swiglu", broken)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checks = list(run_checks(tiny(), device, torch.float32, SOME))
    assert [(c.name, c.problem) for c in checks if not c.passed] == [
        ("SwiGLU", "RuntimeError: no code for this device")
    ]
    assert len(checks) == 5


def test_percent_of_the_floor():
    floor = Floor(1e12, "for this test")
    row = Measured("a", ms=2.0, floor_bytes=10**9, naive_ms=5.0)
    assert floor.percent(row.ms, row.floor_bytes) == pytest.approx(50.0)
    assert floor.percent(2.0, 0) is None
    assert "50 %" in table([row], floor) and "2.50" in table([row], floor)
    found = floor_of(torch.device("cpu"), Clock(torch.device("cpu"), 1))
    assert found.source == "measured by a copy" and found.copy_bandwidth is None and found.bandwidth > 0


def test_full_sizes_are_the_released_ones():
    """Parameters as counted in the released files (model references): backbone 8190.7 M with both embeddings."""
    from math import prod

    from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes

    model = full().model
    assert round(sum(map(prod, backbone_shapes(model).values())) / 1e6, 1) == 8190.7
    assert sum(map(prod, speech_shapes(model).values())) > 532e6
    assert full().flow.inner == 1024 and full().hift.frame_samples == 480
