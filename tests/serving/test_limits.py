"""Sizes of requests: at, below and above every limit; counting by key; both on the real server."""

import json
import subprocess
import sys

import chat_data
import numpy as np
import pytest
from awaiting import until
from faulty import faulty_copy
from harness import KEY_STREAMS, collect, gauges, rejects, settled, unchecked

from client import NO_RETRY, ChatClient, ServerError
from client.protocol.requests import HIGHEST_RATE
from client.protocol.wire import KEY_HEADER
from runtime.errors import InvalidRequest
from runtime.frontend.audio import to_model_rate
from runtime.requests.limits import BYTES_PER_POSITION, PARAMETER_BYTES, RequestLimits, depth
from runtime.requests.messages import Message, parse_messages
from runtime.requests.parse import parse_parameters
from runtime.serving.keys import NO_KEY, key_name
from runtime.supervisor.launch import ServerProcess

RATE = 16_000
LIMITS = RequestLimits(2, 5, 3, 100, 4, 400, 6)
CLIP_S = 300.0


def text(value, name="text"):
    return {name: np.array([value.encode() if isinstance(value, str) else value], np.object_)}


def sound(seconds, rate=RATE):
    return {"audio": np.zeros(int(seconds * rate), np.float32)}


def lengths(count):
    return {"audio_lengths": np.ones(count, np.int32)}


def nested(levels):
    return text("[" * levels + "]" * levels, "messages")


def check(arrays, given):
    """As the door does it; only ``voice`` and the like could be wrong in other ways."""
    parameters = parse_parameters(given, RATE, LIMITS)
    LIMITS.check(arrays, parameters.sample_rate, parameters.system or "")


# name -> a request of this size, its limit, the field that is named
SIZES = {
    "sound": (lambda n: (sound(n), {}), 5, "audio"),
    "sound at another rate": (lambda n: (sound(n, 48_000), {"sample_rate": 48_000}), 5, "audio"),
    "clips": (lambda n: (lengths(n), {}), 3, "audio_lengths"),
    "text": (lambda n: (text("a" * n), {}), 100, "text"),
    "text is counted in bytes": (lambda n: (text("ä" * (n // 2) + "a" * (n % 2)), {}), 100, "text"),
    "system": (lambda n: ({}, {"system": "s" * n}), 100, "system"),
    "voice": (lambda n: ({}, {"voice": "v" * n}), PARAMETER_BYTES, "voice"),
    "document": (lambda n: (text(" " * n, "messages"), {}), 400, "messages"),
    "depth": (lambda n: (nested(n), {}), 6, "messages"),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_sizes_at_below_and_above_the_limit(name, beyond):
    make, limit, field = SIZES[name]
    arrays, values = make(limit + beyond)
    if beyond <= 0:
        check(arrays, values)
        return
    with pytest.raises(InvalidRequest) as caught:
        check(arrays, values)
    assert caught.value.field == field
    assert str(limit) in str(caught.value) and "; " in str(caught.value), "the limit and the remedy"


@pytest.mark.parametrize(("system", "fits"), [(40, True), (41, False)])
def test_text_and_system_share_a_limit_and_keep_their_names(system, fits):
    sent = text("ä" * 30), {"system": "s" * system}
    if fits:
        check(*sent)
        return
    with pytest.raises(InvalidRequest, match=r"text: has 101 bytes together with system, the limit is 100; shorten"):
        check(*sent)


def conversation(turns, size):
    return [Message("user", (None, "x" * size)) for _ in range(turns)]


@pytest.mark.parametrize(("turns", "size", "fits"), [(3, 10, True), (4, 25, True), (5, 1, False), (4, 26, False)])
def test_turns_and_text_of_a_conversation(turns, size, fits):
    if fits:
        LIMITS.check_messages(conversation(turns, size))
        return
    with pytest.raises(InvalidRequest, match=r"messages: has \d+ (turns|bytes of text), the limit is (4|100); leave"):
        LIMITS.check_messages(conversation(turns, size))


@pytest.mark.parametrize(("seconds", "fits"), [(1.9, True), (2.0, True), (2.1, False)])
def test_seconds_of_a_clip(seconds, fits):
    clips = [np.zeros(int(seconds * RATE), np.float32)]
    features = chat_data.config().features
    if fits:
        assert to_model_rate(clips, RATE, features, LIMITS.clip_s) == clips
        return
    with pytest.raises(InvalidRequest, match=r"audio: clip 0 lasts 2\.1 s; send at most 2 s per clip"):
        to_model_rate(clips, RATE, features, LIMITS.clip_s)


def test_an_implausible_rate_is_refused_before_it_is_divided_by():
    for rate in (0, -1, HIGHEST_RATE + 1):
        with pytest.raises(InvalidRequest, match="sample_rate"):
            check(sound(1), {"sample_rate": rate})


def test_brackets_in_strings_have_no_depth():
    assert depth(b'[{"a": "[[[{{{\\"["}, []]') == 2
    assert depth('"[[[') == 0 and depth("]]][") == 0 and depth(b"\xff[") == 1


def test_what_fits_into_the_prompt_is_the_default():
    made = RequestLimits().for_model(4096, 5.0, CLIP_S)
    assert (made.clip_s, made.audio_s, made.text_bytes) == (CLIP_S, 4096 / 5, 4096 * BYTES_PER_POSITION)
    # A conversation at the limits of text and turns is within the limit of the document, escapes included.
    turn = {"role": "assistant", "content": [{"type": "text", "text": "中" * (made.text_bytes // made.turns // 3)}]}
    document = json.dumps([turn] * (made.turns - 1) + [{**turn, "role": "user"}])
    made.check(text(document, "messages"), RATE, "")
    made.check_messages(parse_messages(document, 0))
    assert RequestLimits(clip_s=1000.0).for_model(4096, 5.0, CLIP_S).clip_s == CLIP_S, "never beyond the extractor's"


@pytest.mark.parametrize("bad", [{"clips": 0}, {"json_depth": 0}, {"text_bytes": -1}, {"streams_per_key": -1}])
def test_a_bad_limit_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RequestLimits(**bad)


# --- keys


def test_two_keys_of_one_request_are_refused():
    """A proxy sets the header; a parameter in another case must not be counted in its place."""
    with pytest.raises(InvalidRequest, match=f"{KEY_HEADER}: is given 2 times; send it once") as caught:
        key_name({"x-Api-Key": "made-up", KEY_HEADER: "of-the-proxy"})
    assert caught.value.field == KEY_HEADER and "made-up" not in str(caught.value)


def test_a_key_is_told_from_others_whatever_the_case_of_its_header():
    assert key_name({KEY_HEADER: "one"}) == key_name({"X-Api-Key": "one"}) != key_name({KEY_HEADER: "two"})
    assert key_name({"seed": 1}) == key_name({KEY_HEADER: ""}) == NO_KEY


def test_a_key_is_never_shown():
    name = key_name({KEY_HEADER: "very-secret"})
    assert "secret" not in name and name != key_name({KEY_HEADER: "very-secret2"})


# --- the real server

TOO_LARGE = {
    "sound": ({"audio": np.zeros(821 * RATE, np.float32)}, "audio"),
    "clips": ({"audio": [np.zeros(160, np.float32)] * 65}, "audio_lengths"),
    "text": ({"text": "a" * 32_769}, "text"),
    "one megabyte": ({"text": "word " * 200_000}, "text"),
    "system": ({"text": "hi", "system": "s" * 32_769}, "system"),
    "turns": ({"messages": [{"role": "user", "content": "hi"}] * 257}, "messages"),
    "document": ({"messages": "[" + " " * 200_000 + "]"}, "messages"),
    "depth": ({"messages": "[" * 17 + "]" * 17}, "messages"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_the_server_refuses_what_is_too_large(client, name, monkeypatch):
    unchecked(monkeypatch)
    request, field = TOO_LARGE[name]
    with pytest.raises(ServerError) as caught:
        collect(client, **request)
    assert (caught.value.code, caught.value.field) == ("INVALID_ARG", field)


def test_refusals_are_counted_in_the_metrics(client, server):
    settled(server)
    before = rejects(server, "invalid_request")
    with pytest.raises(ServerError):
        collect(client, text="a" * 40_000)
    assert until(lambda: rejects(server, "invalid_request") - before) == 1


OTHER_STREAMS = 3
ENDLESS = {"text": "Go on.", "mode": "s2t", "greedy": True, "repetition_penalty": 1.0, "max_tokens": 4000}


def speaking(client, count):
    """So many requests that were admitted, or wait for a slot; which, does not matter to their count."""
    return [client.stream(timeout=120, **ENDLESS) for _ in range(count)]


def counted(server, count):
    until(lambda: gauges(server)["counted_requests"] == count, what=f"{count} requests with and without a key")


@pytest.fixture(scope="module")
def strict(triton, built, tmp_path_factory):
    """A server with low limits, whose long answers do not end by themselves."""
    out = faulty_copy(built, tmp_path_factory.mktemp("strict") / "built")
    options = json.loads((out / "options.json").read_text("utf-8"))
    options["limits"]["streams_without_key"] = OTHER_STREAMS
    (out / "options.json").write_text(json.dumps(options), "utf-8")
    with ServerProcess(out, options=("--no-verify",)) as running:
        yield running


def test_a_key_has_so_many_streams_and_no_more(strict):
    server = strict
    with (
        ChatClient(server.url, NO_RETRY) as client,
        ChatClient(server.url, NO_RETRY, headers={KEY_HEADER: "key-of-one"}) as one,
        ChatClient(server.url, NO_RETRY, headers={KEY_HEADER: "key-of-two"}) as two,
    ):
        held = speaking(one, KEY_STREAMS)
        counted(server, KEY_STREAMS)
        with pytest.raises(ServerError) as caught:
            one.ask(text="hi", mode="s2t", max_tokens=2)
        assert (caught.value.code, caught.value.field) == ("UNAVAILABLE", KEY_HEADER)
        assert f"{KEY_STREAMS} at once" in str(caught.value) and "retry" in str(caught.value)
        assert two.ask(text="hi", mode="s2t", max_tokens=2).finish_reason
        assert collect(client, text="hi", mode="s2t", max_tokens=2).finish, "no key has a count of its own"
        with pytest.raises(ServerError, match="INVALID_ARG"):
            two.ask(text="hi", top_p=7)
        held[0].close()
        counted(server, KEY_STREAMS - 1)
        assert one.ask(text="hi", mode="s2t", max_tokens=2).finish_reason
        held[1].close()
        counted(server, 0)
    assert "key-of-" not in server.log()


def test_all_without_a_key_share_one_limit(strict):
    with ChatClient(strict.url, NO_RETRY) as client:
        held = speaking(client, OTHER_STREAMS)
        counted(strict, OTHER_STREAMS)
        with pytest.raises(ServerError, match=f"without a key: {OTHER_STREAMS} at once"):
            client.ask(text="hi", mode="s2t", max_tokens=2)
        for stream in reversed(held):
            stream.close()
        counted(strict, 0)


def test_a_killed_client_gives_its_key_back(strict, tmp_path):
    server = strict
    words = ["--url", server.url, "--header", f"{KEY_HEADER}=key-of-the-killed", "--output-dir", str(tmp_path)]
    endless = ["--text", "Go on.", "--mode", "s2t", "--greedy", "--repetition-penalty", "1", "--max-tokens", "4000"]
    process = subprocess.Popen([sys.executable, "-m", "client", *words, *endless], stdout=subprocess.DEVNULL)
    counted(server, 1)
    process.kill()
    process.wait()
    counted(server, 0)
