"""The first run on a GPU machine: parts end at their limits, a lost device costs one part, results fit one folder."""

import json
import os
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_bare import ROOT
from test_bench_parts import command

from benchmarks.first_gpu.container import container_plan
from benchmarks.first_gpu.cuda import BUDGET_S, cuda_plan
from benchmarks.first_gpu.plan import Part, Step, single
from benchmarks.first_gpu.processes import KILLED, run_parts
from benchmarks.first_gpu.rest import rest_of
from benchmarks.first_gpu.run import LOG, RESULT, FirstRun, budget
from benchmarks.gpu import checks, run
from benchmarks.gpu.checks import DeviceLost, run_checks
from builders.released import tiny

pytestmark = pytest.mark.alone
MOST_FILES = 8  # that a machine which is lent gives back


def python(code, limit_s=20.0, name="part"):
    return Part(name, (sys.executable, "-c", code), limit_s, min(1.0, limit_s))


def first_run(out):
    return FirstRun(ROOT, out, os.environ)


def test_the_budget_is_kept_by_the_plan(tmp_path):
    steps = cuda_plan(ROOT, "python3", tmp_path, False)
    assert sum(step.limit_s for step in steps) <= BUDGET_S
    assert [step.name for step in steps][:4] == ["card", "checks", "gpu", "kernels"], "what decides most comes first"
    assert f"at most {sum(step.limit_s for step in steps):.0f} s of 780 s" in budget(steps, BUDGET_S)
    results = [part.result for step in steps for part in step.parts if part.result]
    assert len({*results, "frames.txt", "flow.txt", RESULT, LOG}) <= MOST_FILES
    for step in (*steps, *container_plan()):
        assert step.if_it_fails and 0 < step.usual_s <= step.limit_s


def test_what_hangs_is_killed_with_all_that_it_started(tmp_path):
    """A kernel that never ends holds its process in the driver, where no signal but one is heard."""
    mark = tmp_path / "late"
    child = f"import time; time.sleep(4); open({str(mark)!r}, 'w')"
    code = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"print('begun', flush=True)\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)"
    )
    began = time.monotonic()
    (found,) = run_parts([python(code, 2.0)], 1, tmp_path, os.environ, began + 30)
    assert not found.passed and found.problem == KILLED and "begun" in found.output
    assert time.monotonic() - began < 15
    time.sleep(3)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import sys; sys.exit(3)", "status 3"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        (None, "cannot start"),
    ],
)
def test_a_part_that_fails_stops_no_other(tmp_path, code, problem):
    bad = python(code) if code else Part("part", ("/no/such/program",), 5.0, 1.0)
    steps = [Step("first", (bad,), "x"), Step("second", (python("print('2 passed')", name="good"),), "x")]
    run = first_run(tmp_path / "out")
    assert not run.run(steps, 60)
    stored = json.loads((tmp_path / "out" / RESULT).read_text())
    assert stored == run.result and stored["finished"]
    first, second = (stored["steps"][name]["parts"][0] for name in ("first", "second"))
    assert problem in first["problem"] and second["passed"] and second["counts"] == {"passed": 2}
    assert "2 passed" in (tmp_path / "out" / LOG).read_text()


def test_steps_get_what_time_is_left(tmp_path):
    slow = replace(python("import time; time.sleep(30)", 30.0, "slow"), usual_s=10.0)
    steps = [Step("slow", (slow,), "x"), single("long", (sys.executable, "-c", ""), 50, 40, "x"),
             Step("needs", (python("1"),), "x", wanted=("NO_SUCH_VARIABLE",))]  # fmt: skip
    run, began = first_run(tmp_path), time.monotonic()
    assert not run.run(steps, 6)
    assert time.monotonic() - began < 20
    found = run.result["steps"]
    assert found["slow"]["parts"][0]["problem"] == KILLED and "s were left" in found["long"]["skipped"]
    assert found["needs"]["skipped"] == "needs NO_SUCH_VARIABLE"


@pytest.mark.parametrize(("said", "passed"), [("4 skipped", False), ("3 passed, 1 skipped", True)])
def test_tests_that_were_all_skipped_have_not_passed(tmp_path, said, passed):
    part = replace(python(f"print({said!r})"), counted=True)
    (found,) = run_parts([part], 1, tmp_path, os.environ, time.monotonic() + 30)
    assert found.passed is passed
    plans = {rehearse: cuda_plan(ROOT, "python3", tmp_path, rehearse)[2] for rehearse in (False, True)}
    assert all(part.counted is not rehearse for rehearse, step in plans.items() for part in step.parts)


def test_parts_run_side_by_side(tmp_path):
    parts = tuple(python("import time; time.sleep(2)", name=str(i)) for i in range(3))
    began = time.monotonic()
    found = run_parts(parts, 3, tmp_path, os.environ, began + 30)
    assert all(one.passed for one in found) and len(found) == 3
    assert max(one.seconds for one in found) <= time.monotonic() - began < 6 + 3 * 0.5 * max(o.seconds for o in found)


def bench_part(*more):
    command = ("python3", "bench", "--parts", "checks,steps,frames", "--json", "/out/checks.json", *more)
    return Part("checks", command, 100, 40, "checks.json")


@pytest.mark.parametrize(
    ("found", "parts", "comparisons"),
    [
        # The device was lost to the second of three comparisons.
        ({"lost": "checks", "compared": ["a", "b"], "seconds": {"checks": 1}}, "checks,steps,frames", "c"),
        # It hung there and was killed.
        ({"running": "checks", "compared": ["a"], "seconds": {}, "finished": False}, "checks,steps,frames", "b;c"),
        ({"lost": "steps", "compared": ["a", "b", "c"], "seconds": {"checks": 1, "steps": 2}}, "frames", None),
        ({"running": "steps", "seconds": {"checks": 1}, "finished": False}, "frames", None),
    ],
)  # fmt: skip
def test_another_process_takes_up_the_rest(found, parts, comparisons):
    known = {"finished": True, "parts": ["checks", "steps", "frames"], "comparisons": ["a", "b", "c"]} | found
    rest = rest_of(bench_part("--comparisons", "a;b;c"), known, 2)
    options = dict(zip(rest.command[2::2], rest.command[3::2], strict=True))
    assert options["--parts"] == parts and options["--json"] == "/out/checks_2.json" == f"/out/{rest.result}"
    assert comparisons is None or options["--comparisons"] == comparisons
    assert rest_of(rest, {"finished": True, "lost": None}, 3) is None and rest_of(rest, None, 3) is None
    later = rest_of(rest, {"running": "frames", "parts": ["frames", "x"], "seconds": {}}, 3)
    assert later.result == "checks_3.json" and later.name == "checks again 3"


def test_a_lost_device_ends_the_comparisons(monkeypatch):
    """After an illegal address every later call fails: none of them says anything of its own kernel."""

    def broken(bed):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(checks, "COMPARISONS", {"first": broken, "second": broken})
    device = torch.device("cpu")
    assert [check.name for check in run_checks(tiny(), device, torch.float32)] == ["first", "second"]
    monkeypatch.setattr(checks, "lost", lambda device: True)
    with pytest.raises(DeviceLost, match="first"):
        list(run_checks(tiny(), device, torch.float32))


def test_a_lost_device_ends_a_bench(monkeypatch, tmp_path):
    def fails(made):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(run, "PARTS", {"first": fails, "second": fails})
    monkeypatch.setattr(run, "lost", lambda device: True)
    result = run.run(command(), {"device": "d"}, tmp_path / "a.json", float("inf"))
    assert result["lost"] == "first" and list(result["errors"]) == ["first"] and not result["passed"]
    assert rest_of(bench_part(), result, 2).command[3] == "second"


def test_whether_a_device_is_lost(monkeypatch):
    gpu = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert not checks.lost(gpu) and not checks.lost(torch.device("cpu"))

    def broken(device):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    assert checks.lost(gpu)
