"""Streaming over HTTP: server-sent events of `generate_stream` carry what the gRPC stream carries."""

import http.client
import json
import urllib.error
import urllib.request
from contextlib import closing

import chat_data
import numpy as np
import pytest
from awaiting import until
from harness import check, collect, gauges, request_of

MODEL = "/v2/models/fun_audio_chat"
EVENT = b"data: "
SOUND = 2e-3  # chunks are batched in other shapes
CASE = "s2s_chirp_0p5s"


def post(server, endpoint, body):
    """Status and body."""
    request = urllib.request.Request(f"{server.addresses.http}{MODEL}/{endpoint}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def events(body):
    return [json.loads(line[len(EVENT) :]) for line in body.split(b"\n\n") if line.startswith(EVENT)]


def numbers(found, name):
    """All of an output's numbers: an event has a list of them, or the number itself where there is one."""
    return [number for event in found for number in np.atleast_1d(event[name]).tolist()]


def body_of(name):
    """A golden case as JSON: tensors and parameters side by side, sound as a list, the history as a string."""
    request = request_of(name)
    clips = request.pop("audio")
    sound = {"audio": np.concatenate(clips).tolist(), "audio_lengths": [len(clip) for clip in clips]} if clips else {}
    return sound | request | {"messages": json.dumps(request["messages"])}


def test_a_stream_over_http_is_that_over_grpc(server, client):
    asked = collect(client, **request_of(CASE))
    check(CASE, asked)
    status, body = post(server, "generate_stream", body_of(CASE))
    found = events(body)
    assert status == 200 and len(found) > 10
    assert numbers(found, "text_token_ids") == asked.ids and numbers(found, "speech_token_ids") == asked.codes
    np.testing.assert_allclose(numbers(found, "audio"), asked.sound, atol=SOUND, rtol=0)
    assert "".join(event["text"] for event in found) == asked.text
    assert found[-1]["finish_reason"] == asked.finish and json.loads(found[-1]["stats"])["text_tokens"] == len(
        asked.ids
    )
    assert 3 < len(body) / asked.sound.nbytes < 8, "docs/protocol.md says about five times"


def test_events_come_while_the_answer_is_made_and_a_closed_connection_cancels(server):
    before = gauges(server)["cancels_total"]
    with closing(http.client.HTTPConnection(server.addresses.http.removeprefix("http://"), timeout=60)) as connection:
        sound = chat_data.wav("noise_2p3s").tolist()
        body = {"audio": sound, "system": "Answer in text and speech.", "seed": 1, "max_tokens": 1500}  # ends late
        connection.request("POST", f"{MODEL}/generate_stream", json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200 and answer.readline().startswith(EVENT)
        until(lambda: gauges(server)["live_requests"] == 1)
    until(lambda: gauges(server)["cancels_total"] == before + 1)
    until(lambda: gauges(server)["live_requests"] == 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": "hi", "max_tokens": 0}, "INVALID_ARG: max_tokens: is 0"),
        ({"text": "hi", "temprature": 1}, "INVALID_ARG: temprature: is not a parameter"),
        ({"text": "hi", "voice": "another"}, "NOT_FOUND: voice: "),
        ({"messages": '[{"role": "user", "content": "hi", "name": "Ann"}]'}, "INVALID_ARG: messages[0].name: "),
    ],
)
def test_errors_before_the_first_response_have_a_status(server, body, words):
    status, text = post(server, "generate_stream", body)
    assert status == 400 and events(text)[0]["error"].startswith(words), text


def test_generate_gives_an_error_for_answers_of_many_responses(server):
    """Triton's own words, and status 200, whatever the model does: docs/protocol.md tells not to use it."""
    status, body = post(server, "generate", {"text": "hi", "max_tokens": 4, "seed": 7})
    assert status == 200 and "use generate stream" in json.loads(body)["error"]


def test_histories_of_sdks_over_the_wire(server, client):
    """Nulls and a tool's call id change no id of the answer."""
    plain = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]
    dumped = [plain[0] | {"name": None, "audio": None}, plain[1] | {"tool_call_id": "call_1", "refusal": None}]
    asked = {"mode": "s2t", "greedy": True, "max_tokens": 4}
    expected = collect(client, messages=plain, **asked)
    status, body = post(server, "generate_stream", asked | {"messages": json.dumps(dumped)})
    assert status == 200 and numbers(events(body), "text_token_ids") == expected.ids
