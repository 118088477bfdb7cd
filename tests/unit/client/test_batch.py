"""The command `batch` with a fake connection: what is asked again, what fails alone, what ends it."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from client import Answer, Chunk, RetryPolicy, batch
from client.request import make_request

END = Chunk(text="hi", audio=np.zeros(240, np.float32), finish_reason="stop")


class FakeClient:
    """Stands in for AsyncChatClient; keeps what it was asked, and refuses what cannot be sent."""

    asked: ClassVar[list] = []

    def __init__(self, url, retry, tls, headers):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exception):
        pass

    async def reconnect(self):
        pass

    async def ask(self, audio=None, sample_rate=16_000, text=None, messages=None, outputs=None, timeout=None, **others):
        if text == "boom":
            raise RuntimeError("two\nlines")
        made = make_request(audio, sample_rate, text, messages, outputs, others)
        self.asked.append(text if audio is None else f"{audio[0].size} samples")
        answer = Answer()
        answer.add(END)
        return answer if made else None


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(batch, "AsyncChatClient", FakeClient)
    monkeypatch.setattr(FakeClient, "asked", [])
    return FakeClient.asked


def manifest(tmp_path, *lines, name="questions.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def run(tmp_path, source, *more):
    return batch.main([str(source), "--output-dir", str(tmp_path / "results"), *more])


def failures(tmp_path):
    lines = (tmp_path / "results" / "failed.jsonl").read_text().splitlines()
    return {line["id"]: line["error"] for line in map(json.loads, lines)}


def test_an_answer_stands_for_its_own_request_only(asked, tmp_path, capsys):
    first = manifest(tmp_path, {"text": "one"}, {"text": "two"})
    assert run(tmp_path, first) == run(tmp_path, first) == 0 and asked == ["one", "two"]
    other = manifest(tmp_path, {"text": "one"}, {"text": "new"}, {"text": "three"}, name="other.jsonl")
    capsys.readouterr()
    assert run(tmp_path, other) == 1 and asked == ["one", "two"], "nothing is asked"
    error = capsys.readouterr().err
    assert error.startswith("ALREADY_EXISTS: output-dir: ") and "000002.json" in error and "--again" in error
    assert run(tmp_path, other, "--again") == 0 and asked == ["one", "two", "one", "new", "three"]
    assert run(tmp_path, other) == 0 and len(asked) == 5


@pytest.mark.parametrize("more", [("--parameters", "seed=2"), ("--priority", "interactive")])
def test_other_parameters_are_another_request(asked, tmp_path, more):
    source = manifest(tmp_path, {"text": "one"})
    assert run(tmp_path, source) == 0
    assert run(tmp_path, source, *more) == 1 and len(asked) == 1


@pytest.mark.parametrize("old", ['{"parameters": {"id": "x"}}', "[]", "{", ""])
def test_an_answer_that_names_no_request_does_not_stand(asked, tmp_path, old):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text(old)
    assert run(tmp_path, manifest(tmp_path, {"id": "x", "text": "one"})) == 1 and not asked


def test_other_sound_is_another_request_and_results_are_no_questions(asked, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    assert run(tmp_path, tmp_path) == run(tmp_path, tmp_path) == 0 and asked == ["800 samples"]
    soundfile.write(tmp_path / "a.wav", np.ones(800), 8000)
    assert run(tmp_path, tmp_path) == 1 and asked == ["800 samples"]


def test_no_answer_replaces_a_question(asked, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    soundfile.write(tmp_path / "results" / "q.wav", np.zeros(800), 8000)
    assert run(tmp_path, manifest(tmp_path, {"id": "q", "audio": "results/q.wav"})) == 1 and not asked
    assert "q.wav is a question" in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "results") == 1 and "holds the questions" in capsys.readouterr().err


BAD = (
    {"text": 5},
    {"text": "\ud800"},
    {"text": "x", "parameters": {"seed": 2**63}},
    {"text": "x", "parameters": {"timeout": 1}},
    {"text": "x", "parameters": {"text": "y"}},
    {"text": "x", "parameters": {"self": 1}},
    {"text": "x", "parameters": {"seed": [1]}},
    {"text": "boom"},
    {"audio": "\x00.wav"},
)


def test_a_bad_item_fails_alone(asked, tmp_path, capsys):
    bad = [{"id": f"bad{number}", **values} for number, values in enumerate(BAD)]
    assert run(tmp_path, manifest(tmp_path, *bad, {"id": "good", "text": "one"})) == 1
    assert asked == ["one"] and (tmp_path / "results" / "good.json").is_file()
    found = failures(tmp_path)
    assert sorted(found) == [item["id"] for item in bad]
    assert found.pop("bad7").startswith("INTERNAL: item: RuntimeError: two")
    assert found.pop("bad8").startswith("NOT_FOUND: audio-path: ")
    assert all(error.startswith("INVALID_ARG: ") for error in found.values())
    assert capsys.readouterr().err.count("\n") == 1


def test_null_goes_back_to_the_default(asked, tmp_path):
    source = manifest(tmp_path, {"id": None, "audio": None, "text": "one", "parameters": {"seed": None, "mode": None}})
    assert run(tmp_path, source, "--parameters", "seed=1,mode=s2t") == 0
    document = json.loads((tmp_path / "results" / "000001.json").read_text())
    assert document["parameters"].keys() == {"priority", "id", "audio", batch.DIGEST}
    assert (tmp_path / "results" / "000001.wav").is_file()


@pytest.mark.parametrize("folder", ["a file", "/proc", "/proc/none"])
def test_a_folder_that_takes_no_results_is_one_line(asked, tmp_path, capsys, folder):
    (tmp_path / "a file").touch()
    source = manifest(tmp_path, {"text": "one"})
    assert batch.main([str(source), "--output-dir", str(tmp_path / folder)]) == 1 and not asked
    error = capsys.readouterr().err
    assert error.startswith("INVALID_ARG: output-dir: ") and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("reconnect_s", "more"), [(0.5, ()), (3.0, ("--timeout", "1.5"))])
def test_a_server_that_stays_away_ends_the_batch(tmp_path, capsys, monkeypatch, reconnect_s, more):
    retry = RetryPolicy(attempts=2, first_s=0.01, most_s=0.01, reconnect_s=reconnect_s)
    monkeypatch.setattr(batch, "RETRY", retry)
    source = manifest(tmp_path, *({"text": str(number)} for number in range(50)))
    assert run(tmp_path, source, "--url", "127.0.0.1:1", "--concurrency", "2", *more) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("UNAVAILABLE: server: 127.0.0.1:1") and "goes on where it stopped" in lines[-1]
    if more:
        assert len(failures(tmp_path)) == 2, "of the items that were asked"
    else:
        assert len(lines) == 1 and not (tmp_path / "results" / "failed.jsonl").exists()
