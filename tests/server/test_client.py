"""The client against a real tritonserver with the stub model: order, errors, cancellation, loss."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest
from awaiting import until
from stub_repository import QUICK, make_stub_repository

from client import NO_RETRY, Cancelled, ChatClient, DeadlineExceeded, ServerError, ServerLost
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children

RESTART_S = 120.0
LONG = {"chunks": 200, "delay_s": 0.05}


def script(**values):
    return json.dumps(values)


@pytest.fixture(scope="module")
def chat(stub_server):
    with ChatClient(stub_server.url) as client:
        yield client


@pytest.fixture
def cancelled(stub_server):
    mark = stub_server.out / "run" / "cancelled"
    mark.unlink(missing_ok=True)
    return mark


def test_chunks_arrive_in_order_and_complete(chat):
    chunks = list(chat.stream(text=script(chunks=5, samples=7)))
    assert "".join(chunk.text for chunk in chunks) == "ä0 ä1 ä2 ä3 ä4 "
    assert [chunk.finish_reason for chunk in chunks] == ["", "", "", "", "stop"]
    np.testing.assert_array_equal(chunks[3].audio, np.full(7, 0.3, np.float32))
    assert chunks[2].speech_token_ids.tolist() == [2] * 5
    assert [chunk.stats is None for chunk in chunks] == [True] * 4 + [False]


def test_an_empty_final_response_ends_the_iteration_too(chat):
    assert len(list(chat.stream(text=script(chunks=2, empty_end=1)))) == 2


def test_empty_audio_and_chosen_outputs(chat):
    (chunk,) = chat.stream(text=script(samples=0), outputs=["text", "audio", "finish_reason"])
    assert (chunk.text, chunk.audio.shape, chunk.stats) == ("ä0 ", (0,), None)
    assert chunk.text_token_ids.size == 0


def test_inputs_and_parameters_arrive(chat):
    clips = [np.zeros(1000, np.float32), np.ones(500, np.int16)]
    (chunk,) = chat.stream(
        clips,
        8000,
        messages=[{"role": "user", "content": "ü"}],
        top_p=0.5,
        top_k=3,
        greedy=True,
        voice="中文女",
        seed=None,
    )
    facts, parameters = chunk.stats["clips"], chunk.stats["parameters"]
    assert (facts["samples"], facts["lengths"]) == (1500, [1000, 500])
    assert json.loads(facts["messages"]) == [{"role": "user", "content": "ü"}]
    kept = {name: value for name, value in parameters.items() if not name.startswith("triton_")}
    assert kept == {"sample_rate": 8000, "top_p": "0.5", "top_k": 3, "greedy": True, "voice": "中文女"}


def test_five_minutes_of_audio_pass(chat):
    (chunk,) = chat.stream(np.zeros(300 * 16000, np.float32))
    assert chunk.stats["clips"]["samples"] == 300 * 16000


@pytest.mark.parametrize(("name", "code"), [("InvalidRequest", "INVALID_ARG"), ("Overloaded", "UNAVAILABLE")])
def test_typed_errors_keep_code_and_field(chat, name, code):
    stream = chat.stream(text=script(chunks=3, error=name, error_after=1))
    assert next(stream).text == "ä0 "
    with pytest.raises(ServerError) as caught:
        next(stream)
    assert (caught.value.code, caught.value.field) == (code, "audio")
    assert caught.value.message == "is a stub's; do nothing"
    assert list(stream) == []


def test_refused_requests_do_not_kill_the_server(stub_server, chat):
    """With the header `triton_grpc_error` Triton 2.51 died after some seventy of them."""
    (before,) = children(stub_server.pid)
    for _ in range(300):
        with pytest.raises(ServerError, match="INVALID_ARG"):
            chat.ask(text=script(error="InvalidRequest"))
    (after,) = children(stub_server.pid)
    assert before.pid == after.pid


@pytest.mark.parametrize("how", ["close", "drop", "with", "channel"])
def test_ending_early_reaches_the_model(stub_server, chat, cancelled, how):
    if how == "channel":
        with ChatClient(stub_server.url) as other:
            stream = other.stream(text=script(**LONG))
            next(stream)
    elif how == "with":
        with chat.stream(text=script(**LONG)) as stream:
            next(stream)
    else:
        stream = chat.stream(text=script(**LONG))
        next(stream)
        if how == "close":
            stream.close()
            assert list(stream) == []
        else:
            del stream
    until(cancelled.exists)


def test_cancel_from_another_thread_raises(chat, cancelled):
    stream = chat.stream(text=script(**LONG))
    next(stream)
    threading.Timer(0.1, stream.cancel).start()
    with pytest.raises(Cancelled):
        list(stream)
    until(cancelled.exists)


def test_a_deadline_ends_the_request_on_both_sides(chat, cancelled):
    with pytest.raises(DeadlineExceeded):
        list(chat.stream(text=script(**LONG), timeout=2.0))
    until(cancelled.exists)


def test_many_streams_at_once(chat):
    answers = [None] * 16

    def run(index):
        answers[index] = "".join(c.text for c in chat.stream(text=script(chunks=5, delay_s=0.01)))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {"ä0 ä1 ä2 ä3 ä4 "}


def test_nobody_listens():
    with ChatClient("127.0.0.1:1") as nobody, pytest.raises(ServerLost, match=r"127\.0\.0\.1:1 cannot be reached"):
        next(nobody.stream(text="{}"))


def test_a_lost_server_is_told_and_the_connection_recovers(triton, tmp_path):
    out = make_stub_repository(tmp_path / "out")
    with ServerProcess(out, options=QUICK) as server, ChatClient(server.url, NO_RETRY) as chat:
        stream = chat.stream(text=script(**LONG))
        next(stream)
        (tritonserver,) = children(server.pid)
        os.kill(tritonserver.pid, signal.SIGKILL)
        with pytest.raises(ServerLost):
            list(stream)
        server.wait_ready(RESTART_S, announcements=2)
        with pytest.raises(ServerLost):  # the stub dies, Triton stays: the supervisor ends the wait
            list(chat.stream(text=script(die=1)))
        server.wait_ready(RESTART_S, announcements=3)
        assert len(list(chat.stream(text="{}"))) == 1


def test_a_stop_lets_live_streams_finish_and_refuses_new_ones(triton, tmp_path):
    out = make_stub_repository(tmp_path / "out")
    with ServerProcess(out, options=QUICK) as server, ChatClient(server.url, NO_RETRY) as chat:
        stream = chat.stream(text=script(chunks=40, delay_s=0.1))
        next(stream)
        os.kill(server.pid, signal.SIGTERM)
        until((out / "run" / "drain").exists)
        with pytest.raises(ServerError, match="UNAVAILABLE: server: is stopping"):
            list(chat.stream(text="{}"))
        assert list(stream)[-1].finish_reason == "stop"
        assert server.stop() == 0
