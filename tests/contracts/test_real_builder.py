"""All graphs of a build through a real builder and parser of NVIDIA's, by our own ``compile_plan``."""

import json
import subprocess
import sys

import pytest

from builders import upstream

pytestmark = pytest.mark.slow
COMMAND = ("-m", "builders.tensorrt.check")
REFUSED = """
import sys
from collections import Counter
from pathlib import Path
from dataclasses import replace
from builders.tensorrt.check import rtx
from builders.tensorrt.check.graphs import built_profiles
from builders.tensorrt.plans import PlanSpec, compile_plan
rtx.install(Counter())
graph, profile = next((g, p) for g, p in built_profiles(Path(sys.argv[1])).items() if g.name == "flow_front.onnx")
wrong = profile | {"tokens": replace(profile["tokens"], low=(17, 6))}
compile_plan(PlanSpec(graph, Path(sys.argv[2]) / "a.plan", wrong), Path(sys.argv[2]) / "times")
"""


@pytest.fixture(scope="module")
def plans(fetched, built, tmp_path_factory):
    fetched(upstream.RTX)
    command = [sys.executable, *COMMAND, "built", str(built), "--to", str(tmp_path_factory.mktemp("plans"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_graph_is_compiled(plans):
    assert len(plans) == 5 and all(plan["bytes"] > 10_000 for plan in plans.values())


def test_sixteen_bit_is_where_it_should_be(plans):
    """Products of the flow's 16-bit step are HALF; softmax, norms and all else of it stay FLOAT."""
    low, high = (plans[name]["layers"] for name in ("flow_step.fp16.onnx", "flow_step.onnx"))
    assert low["MATRIX_MULTIPLY HALF"] > low["MATRIX_MULTIPLY FLOAT"] and "MATRIX_MULTIPLY HALF" not in high
    for kind in ("SOFTMAX", "NORMALIZATION", "CONVOLUTION"):
        assert f"{kind} HALF" not in low and low.get(f"{kind} FLOAT") == high.get(f"{kind} FLOAT")
    assert low["SOFTMAX FLOAT"]
    assert not any(name.endswith("HALF") for name in plans["vocoder.onnx"]["layers"])


def test_a_profile_that_cannot_be_is_refused(fetched, built, tmp_path):
    folders = (fetched(upstream.RTX), upstream.ROOT)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(built), str(tmp_path)],
        env={"PYTHONPATH": ":".join(map(str, folders))}, capture_output=True, text=True,
    )  # fmt: skip
    assert "BuildError: INTERNAL: a.plan: TensorRT refuses its profile" in done.stderr.splitlines()[-1], done.stderr
