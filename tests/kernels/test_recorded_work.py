"""What target ``cuda`` records, at released sizes and without a GPU: no question to the host, no memory that goes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import watched
from watched import META, Recorder

# Variants of kernels that Triton compiles for a part before the model is ready, counted; those of ``fused`` and
# ``int8`` beyond the ones of dense, those of a backbone with experts beyond all of these. Another number is no fault by
# itself: each costs about 0.3 s of every start.
VARIANTS = {"language dense": 42, "language dense fused": 9, "language int8": 5, "experts dense": 18, "experts int8": 5,
            "flow": 9, "vocoder": 2, "encoder": 0}  # fmt: skip
RECORDINGS = {"language dense": 39, "language dense fused": 18, "language int8": 18, "experts dense": 39,
              "experts int8": 39, "flow": 8, "vocoder": 2, "encoder": 1}  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """By part: recordings, problems, lost memory, variants of kernels."""
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, (root, Path(__file__).parent)))}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "recorded_work.py")],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("part", VARIANTS)
def test_recordings_ask_nothing_and_lose_nothing(parts, part):
    """No tensor of the host, no operation that depends on numbers or draws some, no grid beyond a GPU's.

    No memory made by a recording outlives it, and all that it uses beside is there when everything is prepared.
    """
    found = parts[part]
    assert found["recordings"] == RECORDINGS[part]
    assert not found["problems"] and not found["lost"]


@pytest.mark.parametrize("part", VARIANTS)
def test_kernels_are_compiled_before_the_model_is_ready(parts, part):
    """Streams that join afterwards, with prompts of 2 to 600 positions, ask for no other one."""
    assert parts[part]["variants"] == VARIANTS[part] and not parts[part].get("later")


def test_the_watch_notices():
    """Controls: each kind of problem."""
    kept = []
    x = torch.empty(4, 4, device=META)
    works = {
        "a tensor on cpu": lambda: x.add_(torch.ones(4, 4)),
        "depends on numbers": lambda: x.normal_(),
        "outlives": lambda: kept.append(x + 1),
        "grid": lambda: watched.launched.append(("kernel", (1, 1 << 17), [])),
    }
    for problem, work in works.items():
        recorder = Recorder()
        recorder.record(work, lambda: None)
        assert len(recorder.problems) == 1 and problem in recorder.problems[0], problem
    recorder, gone = Recorder(), [torch.empty(3, device=META)]
    recorder.record(lambda: x.add_(gone[0].sum()), lambda: None)
    assert not recorder.problems and recorder.lost() == 0
    gone.clear()
    assert recorder.lost() == 1
