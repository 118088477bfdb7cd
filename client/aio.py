"""The asyncio client does what `ChatClient` does, for programs with an event loop and many streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .access import Tls, metadata_of
from .address import DEFAULT_URL
from .answer import Answer
from .call import chunk_in, typed
from .chunks import Chunk
from .connection import KeepAlive, open_aio_channel
from .errors import ChatError, ServerLost, cancelled, lost, stays_away
from .numbers import seconds
from .request import DEFAULT_RATE, Audio, Scalar, make_request, set_deadline
from .retry import Attempts, RetryPolicy

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


class AsyncCall:
    """One attempt. Lives in the event loop."""

    def __init__(self, call: Any, url: str, on_lost: Callable[[ServerLost], None]) -> None:
        self._call, self._url, self._on_lost = call, url, on_lost
        self._answered = False

    async def next(self) -> Chunk | None:
        """The next chunk; None after the last one. Raises ChatError."""
        while not self._answered:
            response = await self._read()
            if response is grpc.aio.EOF:
                raise lost(self._url, "the stream ended without its last response")
            try:
                chunk, self._answered = chunk_in(response, self._url)
            except ChatError:
                self._answered = True
                await self._read_out()
                raise
            if chunk is not None:
                return chunk
        await self._read_out()
        return None

    def cancel(self) -> None:
        """Ends the request unless the last response was seen."""
        if not self._answered:
            self._call.cancel()

    async def _read_out(self) -> None:
        # A finished call is left to end by itself: Triton mishandles a cancellation that meets its end.
        with contextlib.suppress(grpc.RpcError):
            await self._call.read()

    async def _read(self) -> Any:
        try:
            return await self._call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the task is to end, not just the call
                self._call.cancel()
                raise
            raise cancelled() from None
        except grpc.RpcError as error:
            raise typed(error, self._url, self._on_lost) from None


class AsyncChatStream(AsyncIterator[Chunk]):
    """One running answer: iterate over it with `async for`, or end it early with `cancel` or `close`.

    Args:
        start: begins an attempt, given the seconds that are left.
        attempts: how often and how long.
    """

    def __init__(self, start: Callable[[float | None], Awaitable[AsyncCall]], attempts: Attempts) -> None:
        self._start, self._attempts = start, attempts
        self._call: AsyncCall | None = None
        self._ended = self._cancelled = False
        self._wake = asyncio.Event()  # set by ``cancel`` and ``close``

    async def __anext__(self) -> Chunk:
        while not self._ended:
            call = self._call or await self._begin()
            try:
                chunk = await call.next()
                if chunk is None:
                    self._ended = True
                elif (fresh := self._attempts.replay.new(chunk)) is not None:
                    return fresh
            except ChatError as error:
                if self._ended:  # closed by another task
                    break
                await self._pause(error)
        raise StopAsyncIteration

    @property
    def attempts(self) -> int:
        """Attempts so far."""
        return self._attempts.failures + 1

    def cancel(self) -> None:
        """Ends the request; the iteration raises `Cancelled`."""
        self._cancelled = True
        self._stop()

    def close(self) -> None:
        """Cancels the request when it still runs; the iteration ends."""
        if not self._ended:
            self._ended = True
            self._stop()

    def _stop(self) -> None:
        self._wake.set()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def _begin(self) -> AsyncCall:
        """The next attempt. An error of its own, a server that stays away, is final."""
        try:
            if self._cancelled:
                raise cancelled()
            self._call = await self._start(self._attempts.left())
        except ChatError:
            self._ended = True
            raise
        if self._wake.is_set():  # while the attempt began
            self._call.cancel()
        return self._call

    async def _pause(self, error: ChatError) -> None:
        """Waits before the next attempt. Raises the error when there is none."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        try:
            pause = self._attempts.after(error)
        except ChatError:
            self._ended = True
            raise
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)


class AsyncChatClient:
    """A connection to one server. Make and use it in one event loop; arguments as of `ChatClient`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        retry: RetryPolicy | None = None,
        keepalive: KeepAlive | None = None,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self._retry = retry or RetryPolicy()
        self._lost: ServerLost | None = None
        self._metadata = metadata_of(headers)
        self._channel = open_aio_channel(url, tls, keepalive)
        # One request per call. Called as a stream of requests, asyncio's gRPC replaces the server's refusal by its own
        # "Internal error from Core" when that arrives before the request is written (grpc/grpc#36066).
        self._infer = self._channel.unary_stream(
            STREAM_INFER,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    def stream(
        self,
        audio: Audio = None,
        sample_rate: int = DEFAULT_RATE,
        text: str | None = None,
        messages: Sequence[Mapping[str, Any]] | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        **parameters: Scalar | None,
    ) -> AsyncChatStream:
        """Returns an answer as it is made; arguments as of `ChatClient.stream`. The first iteration sends the request.

        Raises:
            ChatError: at once for arguments that cannot be sent, while iterating for everything else.
        """
        request = make_request(audio, sample_rate, text, messages, outputs, parameters)

        async def start(left: float | None) -> AsyncCall:
            await self.reconnect(left)
            set_deadline(request, left)
            return AsyncCall(self._infer(request, timeout=left, metadata=self._metadata), self.url, self._mark_lost)

        return AsyncChatStream(start, Attempts(self._retry, seconds("timeout", timeout)))

    async def ask(self, audio: Audio = None, sample_rate: int = DEFAULT_RATE, **options: Any) -> Answer:
        """The whole answer at once; arguments as for `stream`."""
        answer = Answer()
        async with self.stream(audio, sample_rate, **options) as stream:
            async for chunk in stream:
                answer.add(chunk)
        return answer

    async def reconnect(self, left: float | None = None) -> None:
        """Waits for a server that was lost, at most so many seconds; returns at once when it was not.

        Raises:
            ServerLost: it stays away.
        """
        loss = self._lost
        if loss is None:
            return
        # After a loss gRPC refuses calls until its next attempt to connect, even when the server is back.
        patience = self._retry.reconnect_s if left is None else min(self._retry.reconnect_s, left)
        try:
            await asyncio.wait_for(self._channel.channel_ready(), patience)
        except TimeoutError:
            raise stays_away(loss, self.url, patience, self._retry.reconnect_s) from None
        self._lost = None

    async def close(self) -> None:
        """Closes the connection; requests that still run are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncChatClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _mark_lost(self, loss: ServerLost) -> None:
        self._lost = loss
