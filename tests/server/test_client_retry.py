"""Repeats after refusals and losses, in both clients, against a real tritonserver with the stub model."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from stub_repository import QUICK, make_stub_repository

from client import NO_RETRY, AsyncChatClient, ChatClient, RetryPolicy, ServerError, ServerLost
from runtime.supervisor.launch import ServerProcess

QUICKLY = RetryPolicy(attempts=3, first_s=0.05, most_s=0.1)
SLOWLY = RetryPolicy(attempts=2, first_s=600, most_s=600)
PATIENTLY = RetryPolicy(attempts=60, first_s=0.2, most_s=0.5, reconnect_s=30.0)


def script(**values):
    return json.dumps({"key": uuid.uuid4().hex, **values})


def ask(url, retry, request, asynchronous):
    """The answer, and how many attempts it took."""
    if not asynchronous:
        with ChatClient(url, retry) as chat, chat.stream(text=request, timeout=60) as stream:
            return list(stream), stream.attempts

    async def run():
        async with AsyncChatClient(url, retry) as chat, chat.stream(text=request, timeout=60) as stream:
            return [chunk async for chunk in stream], stream.attempts

    return asyncio.run(run())


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "asyncio"])


@both
def test_a_refusal_is_repeated_and_bounded(stub_server, asynchronous):
    chunks, attempts = ask(stub_server.url, QUICKLY, script(refuse=2, chunks=2), asynchronous)
    assert len(chunks) == 2 and attempts == 3
    for retry, refusals in ((QUICKLY, 3), (NO_RETRY, 1)):
        with pytest.raises(ServerError, match="UNAVAILABLE: server: is full for now"):
            ask(stub_server.url, retry, script(refuse=refusals), asynchronous)


@both
def test_a_wrong_request_is_not_repeated(stub_server, asynchronous):
    with pytest.raises(ServerError, match="INVALID_ARG"):
        ask(
            stub_server.url,
            RetryPolicy(attempts=2, first_s=30, most_s=30),
            script(error="InvalidRequest"),
            asynchronous,
        )


def test_a_loss_before_any_sound_is_repeated_and_none_after(triton, tmp_path):
    out = make_stub_repository(tmp_path / "out")
    options = (*QUICK, "--quick=0.1")
    with ServerProcess(out, options=options) as server:
        chunks, attempts = ask(server.url, PATIENTLY, script(chunks=4, samples=0, lose_at=2), False)
        assert "".join(chunk.text for chunk in chunks) == "ä0 ä1 ä2 ä3 " and attempts > 1
        assert [int(i) for chunk in chunks for i in chunk.text_token_ids] == [0, 1, 2, 3]
        chunks, attempts = ask(server.url, PATIENTLY, script(chunks=2, samples=0, lose_at=0), True)
        assert len(chunks) == 2 and attempts > 1
        with pytest.raises(ServerLost):
            ask(server.url, PATIENTLY, script(chunks=4, lose_at=2), True)
