"""One request at a time on a gRPC stream, as bytes: what the client library refuses to send can be sent here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from client.aio import STREAM_INFER
from client.connection import KeepAlive, channel_options
from tests.endurance.outcome import End, Outcome


@dataclass(frozen=True, slots=True)
class Leave:
    """When the client cancels: after so many seconds, responses or pieces of sound; never when all are None."""

    after_s: float | None = None
    after_responses: int | None = None
    after_sounds: int | None = None

    def due(self, outcome: Outcome) -> bool:
        """Whether the client leaves after what came."""
        return outcome.responses == self.after_responses or len(outcome.audio) == self.after_sounds


STAY = Leave()


class Wire:
    """A connection. Make and use it in one event loop."""

    def __init__(self, url: str) -> None:
        # A channel of its own: gRPC would share one connection between channels of the same options.
        options = (*channel_options(url, KeepAlive()), ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(url, options)
        self._stream = self._channel.stream_stream(
            STREAM_INFER, response_deserializer=service_pb2.ModelStreamInferResponse.FromString
        )

    async def ask(self, payload: bytes | Sequence[bytes], patience_s: float, leave: Leave = STAY) -> Outcome:
        """Sends one serialised request, or several on one stream, and takes what comes until the stream ends."""
        messages = (payload,) if isinstance(payload, bytes) else tuple(payload)
        outcome, began = Outcome(), time.monotonic()
        call = self._stream(iter(messages))
        try:
            await asyncio.wait_for(_take(call, outcome, leave), patience_s)
        except TimeoutError:
            call.cancel()
            outcome.end = End.HANG
        except asyncio.CancelledError:
            call.cancel()
            raise
        outcome.seconds = time.monotonic() - began
        return outcome

    async def close(self) -> None:
        """Closes the connection; what still runs on it is cancelled."""
        await self._channel.close()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A connection that is closed at the end."""
    wire = Wire(url)
    try:
        yield wire
    finally:
        await wire.close()


async def _take(call: Any, outcome: Outcome, leave: Leave) -> None:
    left = False

    def go() -> None:
        nonlocal left
        if not outcome.ended:
            left = call.cancel()

    timer = None if leave.after_s is None else asyncio.get_running_loop().call_later(leave.after_s, go)
    try:
        # Read to the end of the stream: a cancellation that meets the end of a finished call proves nothing.
        while (response := await call.read()) is not grpc.aio.EOF:
            outcome.add(response)
            if leave.due(outcome):
                go()
    except asyncio.CancelledError:
        if not left:  # the task was cancelled, not the call
            raise
        outcome.end = End.CANCELLED
    except grpc.RpcError as error:
        if not outcome.ended:
            outcome.end, outcome.error = _meaning(error)
    finally:
        if timer is not None:
            timer.cancel()


def _meaning(error: grpc.RpcError) -> tuple[End, str]:
    status, details = error.code(), error.details() or ""
    if status == grpc.StatusCode.UNAVAILABLE:
        return End.LOST, details
    if status == grpc.StatusCode.CANCELLED:
        return End.CANCELLED, details
    return End.ERROR, f"grpc {status.name}: {details}"
