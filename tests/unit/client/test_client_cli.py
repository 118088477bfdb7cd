"""The client's command line and files, with a fake connection."""

from __future__ import annotations

import json
import sys
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from client import ChatError, Chunk, ServerLost, cli
from client.audio_file import read_audio
from client.chunks import OUTPUT_RATE, chunk_of
from client.errors import from_message
from client.request import make_request

CHUNKS = (
    Chunk(text="你", text_token_ids=np.array([1], np.int32)),
    Chunk(
        text="好",
        audio=np.full(2400, 2.0, np.float32),
        finish_reason="stop",
        speech_token_ids=np.arange(5, dtype=np.int32),
        stats={"frames": 2},
    ),
)


class FakeStream(list):
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class FakeClient:
    """Stands in for ChatClient; keeps what it was asked."""

    asked: ClassVar[dict] = {}
    failure: BaseException | None = None

    def __init__(self, url, tls, headers):
        self.url = url

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def stream(self, audio, rate, **arguments):
        type(self).asked = {"audio": audio, "rate": rate, "url": self.url, **arguments}
        if self.failure is not None:
            raise self.failure
        return FakeStream(CHUNKS)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(cli, "ChatClient", FakeClient)
    monkeypatch.setattr(FakeClient, "failure", None)
    return FakeClient


def run(tmp_path, *arguments):
    return cli.main([*arguments, "--output-dir", str(tmp_path / "output")])


def test_three_files(fake, tmp_path, capsys):
    assert run(tmp_path, "--text", "hi", "--enable-stats", "--seed", "3") == 0
    output = tmp_path / "output"
    assert (output / "request_0.txt").read_text("utf-8") == "你好"
    samples, rate = soundfile.read(output / "request_0.wav", dtype="float32")
    assert (samples.size, rate, soundfile.info(output / "request_0.wav").subtype) == (2400, OUTPUT_RATE, "PCM_16")
    assert samples.max() > 0.99  # clipped, not wrapped
    document = json.loads((output / "request_0.json").read_text("utf-8"))
    assert (document["text_token_ids"], document["speech_token_ids"]) == ([1], [0, 1, 2, 3, 4])
    assert (document["finish_reason"], document["stats"]) == ("stop", {"frames": 2})
    assert document["parameters"] == {"seed": 3}
    assert document["timings"]["audio_s"] == 0.1
    printed = capsys.readouterr().out
    assert printed.startswith("你好\nfirst text ")


def test_text_mode_writes_no_sound_and_asks_for_none(fake, tmp_path):
    assert run(tmp_path, "--mode", "s2t", "--text", "hi") == 0
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["request_0.json", "request_0.txt"]
    assert "audio" not in fake.asked["outputs"]
    assert "stats" not in fake.asked["outputs"]
    assert "stats" not in json.loads((tmp_path / "output" / "request_0.json").read_text())


def test_only_what_was_set_is_sent(fake, tmp_path):
    run(tmp_path, "--text", "hi")
    known = {"audio", "rate", "url", "text", "outputs", "timeout"}
    assert fake.asked.keys() == known
    run(tmp_path, "--text", "hi", "--speaker", "x", "--top-p", "0.5", "--greedy", "--mode", "s2s", "--max-tokens", "9")
    sent = {name: value for name, value in fake.asked.items() if name not in known}
    assert sent == {"voice": "x", "top_p": 0.5, "greedy": True, "mode": "s2s", "max_tokens": 9}
    run(tmp_path, "--text", "hi", "--hops", "15,25", "--sample-text")
    assert fake.asked["hops"] == "15,25" and "earliest" not in fake.asked and fake.asked["text_greedy"] is False


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_sound_files_are_mixed_and_resampled(tmp_path, kind):
    path = tmp_path / f"question.{kind}"
    stereo = np.stack([np.full(8000, 0.5), np.zeros(8000)], axis=1)
    soundfile.write(path, stereo, 16000)
    samples, rate = read_audio(path)
    assert (samples.ndim, samples.dtype, rate) == (1, np.float32, 16000)
    assert abs(samples[2000:6000].mean() - 0.5) < 0.02
    samples, rate = read_audio(path, 8000)
    assert rate == 8000
    assert abs(samples.size - 4000) < 700  # lossy formats pad


@pytest.mark.parametrize("content", [None, b"", b"not a sound file"])
def test_a_bad_file_is_one_line(fake, tmp_path, capsys, content):
    path = tmp_path / "question.wav"
    if content is not None:
        path.write_bytes(content)
    assert run(tmp_path, "-a", str(path)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "audio-path" in error and str(path) in error


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (ServerLost("UNAVAILABLE", "server", "gone\naway"), 1, "UNAVAILABLE: server: gone away"),
        (KeyboardInterrupt(), 130, "CANCELLED"),
    ],
)
def test_failures_are_one_line_and_a_status(fake, tmp_path, capsys, monkeypatch, failure, status, words):
    monkeypatch.setattr(FakeClient, "failure", failure)
    assert run(tmp_path, "--text", "hi") == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error
    assert not (tmp_path / "output").exists()


def test_nothing_to_ask_is_wrong_usage(fake, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path)
    assert caught.value.code == 2
    assert "--audio-path" in capsys.readouterr().err


def test_play_without_sounddevice_says_what_to_install(fake, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run(tmp_path, "--text", "hi", "--play") == 1
    assert "pip install sounddevice" in capsys.readouterr().err


def test_chunks_can_be_kept(fake, tmp_path):
    assert run(tmp_path, "--text", "hi", "--save-chunks", str(tmp_path / "chunks")) == 0
    assert [path.name for path in (tmp_path / "chunks").iterdir()] == ["chunk_000.wav"]


def test_nothing_of_an_earlier_answer_stays(fake, tmp_path):
    chunks = tmp_path / "chunks"
    chunks.mkdir()
    for name in ("chunk_000.wav", "chunk_007.wav", "chunk_1000.wav", "chunk_x.wav", "mine_003.wav"):
        (chunks / name).touch()
    assert run(tmp_path, "--text", "hi", "--save-chunks", str(chunks)) == 0
    assert sorted(path.name for path in chunks.iterdir()) == ["chunk_000.wav", "chunk_x.wav", "mine_003.wav"]
    assert run(tmp_path, "--text", "hi", "--mode", "s2t") == 0
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["request_0.json", "request_0.txt"]


def test_an_answer_that_never_began_leaves_earlier_chunks(fake, tmp_path, monkeypatch):
    run(tmp_path, "--text", "hi", "--save-chunks", str(tmp_path / "chunks"))
    monkeypatch.setattr(FakeClient, "failure", ServerLost("UNAVAILABLE", "server", "gone"))
    assert run(tmp_path, "--text", "hi", "--save-chunks", str(tmp_path / "chunks")) == 1
    assert (tmp_path / "chunks" / "chunk_000.wav").exists()


def test_an_answer_never_replaces_its_question(fake, tmp_path, capsys):
    run(tmp_path, "--text", "hi")
    assert run(tmp_path, "-a", str(tmp_path / "output" / "request_0.wav")) == 1
    assert "INVALID_ARG: output-dir: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        {"audio": np.zeros((2, 5), np.float32)},
        {"audio": np.zeros(5, np.int64)},
        {"outputs": ["sound"]},
        {"parameters": {"seed": [1]}},
        {"parameters": {"seed": 2**63}},
        {"parameters": {"seed": -(2**63) - 1}},
        {"parameters": {"system": "a\ud800"}},
        {"parameters": {"a\ud800": 1}},
        {"text": 5},
        {"text": "a\ud800"},
        {"messages": "\ud800"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": {1, 2}}]},
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(arguments):
    with pytest.raises(ChatError, match="INVALID_ARG"):
        request(**arguments)


def request(**arguments):
    defaults = {"audio": None, "sample_rate": 1, "text": "x", "messages": None, "outputs": None, "parameters": {}}
    return make_request(**{**defaults, **arguments})


def test_all_integers_of_64_bits_are_sent():
    sent = request(parameters={"seed": 2**63 - 1, "top_k": -(2**63)}).parameters
    assert (sent["seed"].int64_param, sent["top_k"].int64_param) == (2**63 - 1, -(2**63))


def test_a_path_may_be_a_string(tmp_path):
    soundfile.write(tmp_path / "question.wav", np.zeros(800), 8000)
    sent = request(audio=str(tmp_path / "question.wav"))
    assert sent == request(audio=tmp_path / "question.wav") and sent.parameters["sample_rate"].int64_param == 8000


@pytest.mark.parametrize(
    "words",
    [("--text", "hi", "--seed", "9223372036854775808"), ("--text", "\udcff"), ("--text", "a", "--system", "\udcff")],
)
def test_what_cannot_be_sent_is_one_line(tmp_path, capsys, words):
    assert run(tmp_path, *words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("INVALID_ARG: ")


def test_messages_of_the_server_are_recognised():
    error = from_message("[request id: 7] NOT_FOUND: voice: 'x' is not known; use one of a: b")
    assert (error.code, error.field, error.message) == ("NOT_FOUND", "voice", "'x' is not known; use one of a: b")
    assert from_message("Socket closed") is None


def test_a_response_without_outputs_is_no_chunk():
    from tritonclient.grpc import service_pb2

    assert chunk_of(service_pb2.ModelInferResponse()) is None


def test_a_silly_rate_is_one_line(fake, tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", np.zeros(800), 8000)
    assert run(tmp_path, "-a", str(tmp_path / "x.wav"), "--sampling-rate", "100000000000000") == 1
    error = capsys.readouterr().err
    assert error.startswith("INVALID_ARG: sampling-rate: has 1e+14 ") and error.count("\n") == 1
