"""The asyncio client against a real tritonserver with the stub model: what `ChatClient` is tested for."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest
from awaiting import until

from client import (
    AsyncChatClient,
    Cancelled,
    ChatClient,
    ChatError,
    DeadlineExceeded,
    RetryPolicy,
    ServerError,
    write_wav,
)

LONG = {"chunks": 200, "delay_s": 0.05}
SLOW = {"chunks": 20, "delay_s": 0.5}


def script(**values):
    return json.dumps(values)


def with_client(url, use):
    async def run():
        async with AsyncChatClient(url) as chat:
            return await asyncio.wait_for(use(chat), 30)

    return asyncio.run(run())


@pytest.fixture
def cancelled(stub_server):
    mark = stub_server.out / "run" / "cancelled"
    mark.unlink(missing_ok=True)
    yield mark
    until(mark.exists, what="the model saw no cancellation")


def test_many_answers_at_once(stub_server):
    async def use(chat):
        return await asyncio.gather(*(chat.ask(text=script(chunks=5, delay_s=0.01, samples=7)) for _ in range(16)))

    answers = with_client(stub_server.url, use)
    assert {answer.text for answer in answers} == {"ä0 ä1 ä2 ä3 ä4 "}
    assert all(answer.audio.size == 35 and answer.finish_reason == "stop" for answer in answers)


def test_an_empty_final_response_ends_the_iteration_too(stub_server):
    answer = with_client(stub_server.url, lambda chat: chat.ask(text=script(chunks=2, empty_end=1)))
    assert len(answer.chunks) == 2


def test_errors_are_typed(stub_server):
    async def use(chat):
        with pytest.raises(ServerError, match="NOT_FOUND: audio"):
            await chat.ask(text=script(error="NotFound"))
        with pytest.raises(ChatError, match="INVALID_ARG: outputs"):
            chat.stream(text="x", outputs=["sound"])

    with_client(stub_server.url, use)


@pytest.mark.parametrize("how", ["cancel", "close", "with", "task", "deadline"])
def test_ending_early_reaches_the_model(stub_server, cancelled, how):
    async def use(chat):
        stream = chat.stream(text=script(**SLOW), timeout=2.0 if how == "deadline" else None)
        await anext(stream)
        if how == "cancel":
            stream.cancel()
            with pytest.raises(Cancelled):
                await anext(stream)
        elif how == "close":
            stream.close()
            assert [chunk async for chunk in stream] == []
        elif how == "with":
            async with stream:
                pass
        elif how == "deadline":
            with pytest.raises(DeadlineExceeded):
                async for _ in stream:
                    pass
        else:
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with_client(stub_server.url, use)


def test_a_cancel_between_two_attempts_is_heard_at_once(stub_server):
    async def run():
        async with AsyncChatClient(stub_server.url, RetryPolicy(first_s=20, most_s=20)) as chat:
            stream = chat.stream(text=script(refuse=3, key="between"))
            task = asyncio.ensure_future(anext(stream))
            while stream.attempts == 1:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            stream.cancel()
            with pytest.raises(Cancelled):
                await task
            assert time.monotonic() - began < 5, "the pause is twice as long at least"

    asyncio.run(run())


def test_closing_the_client_ends_its_streams_with_an_error_of_ours(stub_server, cancelled):
    """A bare `CancelledError` would be taken for the end of a task that nobody has cancelled."""

    async def use(chat):
        stream = chat.stream(text=script(**LONG))
        await anext(stream)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        await chat.close()
        with pytest.raises(ChatError):
            while True:
                await task
                task = asyncio.ensure_future(anext(stream))

    with_client(stub_server.url, use)


def test_files_and_arrays_arrive_alike(stub_server, tmp_path):
    samples = np.linspace(-0.5, 0.5, 800).astype(np.float32)
    write_wav(tmp_path / "question.wav", samples, 8000)
    answer = with_client(stub_server.url, lambda chat: chat.ask(tmp_path / "question.wav"))
    with ChatClient(stub_server.url) as chat:
        same = chat.ask(samples, 8000)
    for made in (answer, same):
        stats = made.chunks[-1].stats
        assert stats["clips"]["samples"] == 800 and stats["parameters"]["sample_rate"] == 8000
    with ChatClient(stub_server.url) as chat, pytest.raises(ChatError, match="is not a file"):
        chat.ask(tmp_path / "none.wav")
