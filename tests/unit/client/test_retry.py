"""When a request is repeated, what of a repeated answer is delivered, and the keep-alive that both sides share."""

from __future__ import annotations

import numpy as np
import pytest

from client import Cancelled, Chunk, KeepAlive, RetryPolicy, ServerError, ServerLost
from client.address import DEFAULT_URL
from client.connection import channel_options
from client.protocol.wire import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MIN_PING_INTERVAL_MS
from client.retry import NO_RETRY, Attempts, Replay, worth_repeating
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.command import command
from runtime.supervisor.config import ServerConfig

LOST = ServerLost("UNAVAILABLE", "server", "gone")
SOUND = np.zeros(10, np.float32)


def text(words, *ids):
    return Chunk(text=words, text_token_ids=np.array(ids, np.int32))


def test_pauses_grow_within_bounds_and_are_spread():
    policy = RetryPolicy(attempts=9, first_s=0.2, most_s=1.0)
    assert [policy.pause(n, draw=lambda: 1.0) for n in (1, 2, 3, 4, 8)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    assert policy.pause(3, draw=lambda: 0.0) == 0.4
    assert policy.pause(1, 2.5, lambda: 0.0) == 2.6, "never before the time that the server names"


def test_the_hint_of_a_refusal_is_waited_for():
    full = ServerError("UNAVAILABLE", "queue", "32 requests are here already; retry in 2.5 s")
    assert full.retry_after_s == 2.5
    assert ServerError("UNAVAILABLE", "server", "is stopping; retry in a minute").retry_after_s is None
    assert 2.6 <= Attempts(RetryPolicy(first_s=0.2)).after(full) <= 2.7
    with pytest.raises(ServerError):
        Attempts(RetryPolicy(first_s=0.2), timeout=2.0).after(full)


@pytest.mark.parametrize("values", [{"attempts": 0}, {"first_s": 0}, {"first_s": 3}, {"reconnect_s": 0}])
def test_policies_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        RetryPolicy(**values)


def test_only_what_may_pass_is_repeated():
    assert worth_repeating(LOST)
    assert worth_repeating(ServerError("UNAVAILABLE", "server", "full"))
    assert not worth_repeating(ServerError("INVALID_ARG", "top_p", "7"))
    assert not worth_repeating(Cancelled("CANCELLED", "request", "by the user"))


def test_attempts_end_with_the_policy_the_deadline_or_the_first_sound():
    attempts = Attempts(RetryPolicy(attempts=3))
    assert attempts.after(LOST) > 0 and attempts.after(LOST) > 0
    with pytest.raises(ServerLost):
        attempts.after(LOST)
    assert attempts.failures == 2, "of attempts that were followed by another"
    with pytest.raises(ServerLost):
        Attempts(NO_RETRY).after(LOST)
    now = 0.0
    late = Attempts(RetryPolicy(first_s=1.0), timeout=0.4, clock=lambda: now)
    with pytest.raises(ServerLost):
        late.after(LOST)
    heard = Attempts(RetryPolicy())
    heard.replay.new(Chunk(audio=SOUND))
    with pytest.raises(ServerLost):
        heard.after(LOST)


def test_a_repeated_beginning_is_left_out_once():
    replay = Replay()
    assert [replay.new(c).text for c in (text("Good ", 1), text("day", 2))] == ["Good ", "day"]
    replay.restart(LOST)
    assert replay.new(text("Goo", 1)) is None
    fresh = replay.new(text("d day, sir", 2, 3))
    assert (fresh.text, fresh.text_token_ids.tolist()) == (", sir", [3])
    assert replay.new(text("", 4)).text_token_ids.tolist() == [4]
    replay.restart(LOST)
    assert replay.new(text("Good day, sir", 1, 2, 3, 4)) is None
    assert replay.new(Chunk(text=".", audio=SOUND)).text == "."


def speech(*codes):
    return Chunk(speech_token_ids=np.array(codes, np.int32))


@pytest.mark.parametrize(("first", "second"), [(text("Good day"), text("Good bye")), (speech(1, 2), speech(1, 3))])
def test_another_answer_is_the_loss(first, second):
    replay = Replay()
    replay.new(first)
    replay.restart(LOST)
    with pytest.raises(ServerLost):
        replay.new(second)


def test_keep_alive_is_the_same_on_both_sides(tmp_path):
    options = dict(channel_options(DEFAULT_URL, KeepAlive()))
    line = command(ServerConfig(tmp_path), TritonInstall(("tritonserver",)), {}, "x", "k")
    assert f"--grpc-keepalive-time={options['grpc.keepalive_time_ms']}" in line
    assert f"--grpc-keepalive-timeout={options['grpc.keepalive_timeout_ms']}" in line
    assert (KeepAlive().every_ms, KeepAlive().timeout_ms) == (KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS)
    with pytest.raises(ValueError, match="closes the connection"):
        KeepAlive(every_ms=MIN_PING_INTERVAL_MS - 1)
