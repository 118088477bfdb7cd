"""Parity of target cuda on the golden checkpoint: five cases, and the authors' recorded runs; precision measured."""

import json

import chat_data as data
import pytest
import soundfile
from test_parity_command import built, last_json  # noqa: F401 - a fixture

from builders.parity import authors
from builders.parity.__main__ import main
from runtime.engines.kernel_stack import DecoderStack

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
    unasked = [run["case"] for run in found["runs"] if run["asked"] is None]
    assert unasked == ["s2s_discrete_history"], "history as codes cannot be asked"
    heard = [run["asked"]["rows_error"] for run in found["runs"] if run["asked"] and run["asked"]["rows_error"]]
    assert len(heard) == 12 and max(heard) < 1e-5


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


def one_case(folder, name, **change):
    """A folder of recorded runs that holds one of them, its manifest changed."""
    case = data.cases()[name] | change
    (folder / "manifest.json").write_text(json.dumps({"cases": {name: case}}))
    (folder / "audio").mkdir()
    for file in (
        f"run_{name}.npz",
        f"prefill_{name}.npz",
        *(f"audio/{clip}.flac" for clip in data.cases()[name]["wavs"]),
    ):
        (folder / file).symlink_to(data.FOLDER / file)
    return ["--model", str(data.CHECKPOINT), "--vectors", str(folder), *ON_CPU]


def test_another_prompt_fails(tmp_path, capsys):
    conversation = [
        {"role": "system", "content": "Say it in two."},
        *data.cases()["s2s_chirp_0p5s"]["conversation"][1:],
    ]
    assert authors.main(one_case(tmp_path, "s2s_chirp_0p5s", conversation=conversation)) == 1
    [run] = last_json(capsys.readouterr().out)["runs"]
    assert not run["asked"]["passed"] and run["divergence"] is None, "the frames start from the authors' prompt"


@pytest.mark.parametrize(
    ("change", "error"),
    [(lambda clip: clip[:-6400], float("inf")), (lambda clip: clip[::-1], 0.1)],
    ids=["cut", "back"],
)
def test_other_sound_fails(tmp_path, capsys, change, error):
    """A clip of another length has other rows; of the same one, other values."""
    arguments = one_case(tmp_path, "s2s_noise_2p3s", wavs=["other"])
    soundfile.write(tmp_path / "audio" / "other.wav", change(data.wav("noise_2p3s")), 16000, subtype="FLOAT")
    assert authors.main(arguments) == 1
    [run] = last_json(capsys.readouterr().out)["runs"]
    assert not run["asked"]["passed"] and run["asked"]["rows_error"] >= error


def test_missing_sound_is_named(tmp_path, capsys):
    assert authors.main(one_case(tmp_path, "s2s_noise_2p3s", wavs=["lost"])) == 1
    assert "audio/lost: is not in" in capsys.readouterr().err


def test_what_cannot_be_compared(tmp_path, capsys):
    assert authors.main(["--model", str(data.CHECKPOINT), "--vectors", str(tmp_path), *ON_CPU]) == 1
    assert "manifest.json: cannot be read" in capsys.readouterr().err
