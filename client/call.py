"""One attempt of a request is a running gRPC call; its responses become chunks, its errors typed.

Errors come inside the stream, their code in their text. The header ``triton_grpc_error``, which would keep
Triton's status code, is not used: with it Triton 2.51 died of a segmentation fault after some seventy refused
requests, without it none in 4600 did harm. Calls are those of the generated gRPC classes of `tritonclient`: a
plain call object can be cancelled, has a deadline and keeps the server's status, none of which a shared stream
with callbacks gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from .chunks import Chunk, chunk_of
from .errors import ChatError, ServerError, ServerLost, from_rpc, from_text, lost
from .request import FINAL_RESPONSE


def chunk_in(response: Any, url: str) -> tuple[Chunk | None, bool]:
    """What a stream response carries, and whether it is the last one.

    Raises:
        ServerError: it carries an error.
        Cancelled: it says that the request was cancelled.
    """
    if response.error_message:
        known = from_text(response.error_message, url)
        raise known or ServerError("UNKNOWN", "server", response.error_message)
    answer = response.infer_response
    return chunk_of(answer), answer.parameters[FINAL_RESPONSE].bool_param


def typed(error: grpc.RpcError, url: str, on_lost: Callable[[ServerLost], None]) -> ChatError:
    """The typed error of a failed call; a loss is reported to ``on_lost``."""
    known = from_rpc(error, url)
    if isinstance(known, ServerLost):
        on_lost(known)
    return known


class Call:
    """A running call; `cancel` may come from any thread.

    Args:
        on_lost: called when the server turns out to be gone.
    """

    def __init__(self, call: Any, url: str, on_lost: Callable[[ServerLost], None]) -> None:
        self._call, self._url, self._on_lost = call, url, on_lost
        self._done = False  # nothing more to give
        self._answered = False  # the last response was seen, the call itself may still be closing

    def next(self) -> Chunk | None:
        """The next chunk; None after the last one or after `close`. Raises ChatError."""
        while not self._done and not self._answered:
            chunk = self._receive()
            if chunk is not None:
                return chunk
        self.close()
        return None

    def cancel(self) -> None:
        """Ends the request; the server frees what it holds within about two frames (0.4 s)."""
        if not self._answered:
            self._call.cancel()

    def close(self) -> None:
        """Cancels the request when it still runs."""
        if self._done:
            return
        self._done = True
        if self._answered:
            self._read_out()
        else:
            self._call.cancel()

    def _receive(self) -> Chunk | None:
        try:
            response = next(self._call)
        except StopIteration:
            self._done = True
            raise lost(self._url, "the stream ended without its last response") from None
        except grpc.RpcError as error:
            if self._done:  # closed by another thread
                return None
            self._done = True
            raise typed(error, self._url, self._on_lost) from None
        try:
            chunk, self._answered = chunk_in(response, self._url)
        except ChatError:
            self._done = True
            self._read_out()
            raise
        return chunk

    def _read_out(self) -> None:
        # Triton mishandles a cancellation that meets the end of a call, so a finished call is left to
        # end by itself, which takes it about a millisecond.
        with contextlib.suppress(grpc.RpcError):
            for _ in self._call:
                pass
