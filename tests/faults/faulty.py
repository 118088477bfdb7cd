"""A rendered folder whose models break on order, and what the tests ask of the server on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import chat_data
import numpy as np
from harness import collect, request_of

from client import NO_RETRY, ChatClient, ChatError
from runtime.contracts import ALL_MODELS

STAGES = ("log_mel", "audio_encoder", "flow", "vocoder")
MODELS = (*STAGES, "fun_audio_chat")
CASE = "s2s_noise_2p3s"
SPOKEN = request_of(CASE) | {"max_tokens": 40}
CLIP = chat_data.wav("noise_2p3s")
# An answer of a faulty copy that does not end by itself.
ENDLESS = {"audio": CLIP, "system": "Answer in text and speech.", "seed": 1, "max_tokens": 1500}
SOUND_TOLERANCE = 2e-3
# Quick to notice and quick to come back; the defaults of `make serve` are slower by their patience only.
QUICK = (
    "--no-verify",
    "--poll=0.05",
    "--backoff=0.1",
    "--max-backoff=0.2",
    "--quick-failures=99",
    "--heartbeat=6",
    "--drain=5",
)
SNIPPET = """

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # a path that the interpreter of a stub can spell
from injected import arm

_Sound = TritonPythonModel


class TritonPythonModel(_Sound):
    def initialize(self, args):
        super().initialize(args)
        name = args["model_name"]
        arm(self, name, Path(__file__).parents[3] / "run" / ("fault_" + name), globals())
"""
assert set(MODELS) <= {contract.name for contract in ALL_MODELS}


def plain_copy(built: Path, out: Path) -> Path:
    """A copy that shares the large files, so that the others can be changed."""
    shutil.copytree(built, out, copy_function=_link, ignore=shutil.ignore_patterns("run", "model_repository"))
    shutil.copytree(built / "model_repository", out / "model_repository")
    for name in ("options.json", "manifest.json"):
        (out / name).unlink()
        shutil.copy2(built / name, out / name)
    (out / "run").mkdir()
    return out


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def faulty_copy(built: Path, out: Path, **serving) -> Path:
    """A copy whose models obey orders; ``serving`` replaces options of the section ``serving``."""
    plain_copy(built, out)
    for name in MODELS:
        model = out / "model_repository" / name / "1" / "model.py"
        with model.open("a") as file:
            file.write(SNIPPET)
        shutil.copy2(Path(__file__).with_name("injected.py"), model.parent)
    options = json.loads((out / "options.json").read_text())
    options["serving"] |= serving
    (out / "options.json").write_text(json.dumps(options))
    return out


@contextlib.contextmanager
def ordered(server, model, **order):
    """Has a model break as long as the block lasts."""
    file = server.out / "run" / f"fault_{model}"
    new = file.with_suffix(".new")
    new.write_text(json.dumps(order))
    new.replace(file)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@dataclass
class Outcome:
    """How a request ended, and how long that took."""

    answer: object = None
    error: ChatError | None = None
    seconds: float = 0.0

    def is_golden(self, baseline) -> bool:
        """Ids equal to those of an undisturbed answer, sound as close as always."""
        a = self.answer
        if a is None or (a.ids, a.codes) != (baseline.ids, baseline.codes) or len(a.sound) != len(baseline.sound):
            return False
        return bool(np.abs(a.sound - baseline.sound).max() <= SOUND_TOLERANCE)


def attempt(url, **request) -> Outcome:
    """One request by a client of its own that never repeats."""
    began = time.monotonic()
    try:
        with ChatClient(url, retry=NO_RETRY) as client:
            return Outcome(answer=collect(client, **request), seconds=time.monotonic() - began)
    except ChatError as error:
        return Outcome(error=error, seconds=time.monotonic() - began)
