"""Files that are damaged, and readiness that is never claimed."""

import json
import shutil
import time

import pytest
from faulty import CLIP, QUICK, SPOKEN, attempt, faulty_copy, ordered, plain_copy

from client import ServerError
from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.errors import StartFailed
from runtime.supervisor.launch import ServerProcess

ENGINES = ("engines/audio_encoder.onnx", "token2wav/voices.npz", "options.json")
START_S = 120.0


def graphs(built):
    return sorted(str(path.relative_to(built)) for path in built.rglob("*.onnx"))


def flip(path):
    """Turns some bytes in the middle over; the file keeps its size."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - value for value in data[middle : middle + 64])
    path.unlink()  # it may be a link to the original
    path.write_bytes(data)


def truncate(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def refused(out, *options):
    began = time.monotonic()
    with pytest.raises(StartFailed) as caught:
        ServerProcess(out, options=options, start_timeout=START_S).start()
    return str(caught.value), time.monotonic() - began


@pytest.mark.parametrize("damage", [flip, truncate])
def test_every_damaged_file_is_refused_by_name(triton, built, tmp_path, record, damage):
    files = [*graphs(built), "token2wav/voices.npz", "options.json", "manifest.json"]
    if damage is flip:
        files.remove("manifest.json")  # half of it is hashes; a flip there names another file
    for name in files:
        out = plain_copy(built, tmp_path / name.replace("/", "_"))
        damage(out / name)
        message, took = refused(out)
        assert "exited with code 1" in message
        assert name in message.replace("manifest.json: names", "") and "run: make build-engines" in message
        shutil.rmtree(out)
        record.add(f"{damage.__name__} bytes of {len(files)} built files, one by one", "exit code 1, file named", took)


def test_a_damaged_checkpoint_is_refused_by_name(triton, built, tmp_path, record):
    out = plain_copy(built, tmp_path / "cpu")
    manifest = json.loads((out / "manifest.json").read_text())
    weights = next(name for name in manifest["inputs"] if name.endswith(".safetensors"))
    copy = tmp_path / "model.safetensors"
    shutil.copy2(weights, copy)
    flip(copy)
    manifest["inputs"][str(copy)] = manifest["inputs"].pop(weights)  # the folder was built from this very file
    (out / "manifest.json").write_text(json.dumps(manifest))
    message, took = refused(out)
    assert "exited with code 1" in message and "model.safetensors" in message and "make build-engines" in message
    record.add("flip bytes of the checkpoint's weights", "exit code 1, file named", took)


@pytest.mark.long
@pytest.mark.parametrize("name", ENGINES)
def test_without_verification_a_damaged_file_is_still_one_clear_line(built, tmp_path, record, name):
    out = plain_copy(built, tmp_path / "cpu")
    truncate(out / name)
    message, took = refused(out, "--no-verify")
    assert "exited with code 1" in message
    last = message.splitlines()[-1]
    assert last.startswith("INTERNAL: ") and len(last) < 2000
    record.add("truncated file and --no-verify", "exit code 1, one line with the model and its reason", took)


def test_a_missing_voice_is_named_with_those_that_exist(faulty, record):
    outcome = attempt(faulty.url, audio=CLIP, voice="nobody")
    assert isinstance(outcome.error, ServerError) and outcome.error.code == "NOT_FOUND"
    assert outcome.error.field == "voice" and "use one of " in outcome.error.message
    record.add("missing voice", "NOT_FOUND: voice, with the voices that exist", outcome.seconds)


def test_a_broken_vocoder_is_never_ready(triton, built, tmp_path, record):
    out = faulty_copy(built, tmp_path / "cpu")
    server = ServerProcess(out, options=QUICK, start_timeout=START_S)
    with ordered(server, "vocoder", mode="always"), pytest.raises(StartFailed) as caught:
        server.start()
    assert "\nready: " not in server.log() and not server.ready(PUBLIC_MODEL)
    assert PUBLIC_MODEL in str(caught.value)
    record.add("vocoder that always fails, at start", "never ready; exit code 1 with the reason")


def test_readiness_is_false_while_the_model_is_away(faulty):
    assert faulty.ready(PUBLIC_MODEL)
    assert attempt(faulty.url, **SPOKEN).error is None
