"""Parity of target cuda on the golden checkpoint: five cases, and the authors' recorded runs; precision measured."""

import json

import chat_data as data
import pytest
from test_parity_command import built, last_json  # noqa: F401 - a fixture

from runtime.engines.stack import DecoderStack
from runtime.parity import authors
from runtime.parity.__main__ import main

pytestmark = pytest.mark.golden
ON_CPU = ["--device", "cpu"]


@pytest.mark.parametrize(
    "engine", [{}, {"dtype": "bfloat16"}, {"linear": "int8"}, {"linear": "fp8"}], ids=["exact", "bf16", "int8", "fp8"]
)
def test_five_cases(built, capsys, engine):  # noqa: F811
    """The stacks of the frames against the torch engine: contexts, chunks, mixed batches, shuffled blocks."""
    assert main([*built(device="cuda", **engine), "cuda", *ON_CPU]) == 0
    cases = last_json(capsys.readouterr().out)["cases"]
    assert len(cases) == 10 and all(case["passed"] for case in cases)
    worst = max(case["logits_error"] / case["logits_bound"] for case in cases)
    assert 1e-3 < worst < 0.9, "not idle, and well within its bound"


def run_authors(capsys, *options):
    arguments = ["--model", str(data.CHECKPOINT), "--vectors", str(data.FOLDER), *ON_CPU, *options]
    status = authors.main(arguments)
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_recorded_run_in_float32(capsys):
    status, found = run_authors(capsys)
    assert status == 0 and found["passed"] and len(found["runs"]) == 14
    for run in found["runs"]:
        assert run["divergence"] is None and max(run["hidden_error"], run["logits_error"]) < 1e-5
        assert run["text_ids"].split("/")[0] == run["text_ids"].split("/")[1]


@pytest.mark.parametrize("options", [["--dtype", "bfloat16"], ["--linear", "int8"], ["--linear", "fp8"]])
def test_lower_precision_is_within_its_bound(capsys, options):
    """Ids part sooner or later, and the table says where; what is inside the steps before stays close."""
    status, found = run_authors(capsys, *options)
    assert status == 0
    assert any(run["divergence"] for run in found["runs"])
    assert 1e-3 < max(run["logits_error"] for run in found["runs"]) < 0.3


def test_a_wrong_stack_fails(capsys, monkeypatch):
    right = DecoderStack.__call__
    monkeypatch.setattr(DecoderStack, "__call__", lambda *a, **k: right(*a, **k) * 1.001)
    status, found = run_authors(capsys)
    assert status == 1 and not found["passed"]


def test_what_cannot_be_compared(tmp_path, capsys):
    assert authors.main(["--model", str(data.CHECKPOINT), "--vectors", str(tmp_path), *ON_CPU]) == 1
    assert "manifest.json: cannot be read" in capsys.readouterr().err
