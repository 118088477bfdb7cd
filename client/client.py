"""The synchronous client opens one gRPC stream per request and repeats a request where that is safe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tritonclient.grpc import service_pb2_grpc

from .access import Tls, metadata_of
from .address import DEFAULT_URL
from .answer import Answer
from .call import Call
from .chunks import Chunk
from .connection import KeepAlive, connects, open_channel
from .errors import Cancelled, ChatError, ServerLost, stays_away
from .numbers import seconds
from .request import DEFAULT_RATE, Audio, Scalar, make_request, set_deadline
from .retry import Attempts, RetryPolicy


class ChatStream(Iterator[Chunk]):
    """One running answer: iterate over it, or end it early with `cancel` or `close`.

    `cancel` may come from any thread; the iteration then raises `Cancelled`. Leaving a `with` block,
    `close` and dropping the last reference cancel too, without an error.

    Args:
        start: begins an attempt, given the seconds that are left.
        attempts: how often and how long.
    """

    def __init__(self, start: Callable[[float | None], Call], attempts: Attempts) -> None:
        self._start, self._attempts = start, attempts
        self._ending = threading.Event()  # ends a pause between attempts
        self._closed = False
        self._call = start(attempts.left())

    def __next__(self) -> Chunk:
        while not self._closed:
            try:
                chunk = self._call.next()
                if chunk is None:
                    self._closed = True
                elif (fresh := self._attempts.replay.new(chunk)) is not None:
                    return fresh
            except ChatError as error:
                self._again(error)
        raise StopIteration

    @property
    def attempts(self) -> int:
        """Attempts so far."""
        return self._attempts.failures + 1

    def cancel(self) -> None:
        """Ends the request; the server frees what it holds within about two frames (0.4 s)."""
        self._ending.set()
        self._call.cancel()

    def close(self) -> None:
        """Cancels the request when it still runs; the iteration ends."""
        self._closed = True
        self._ending.set()
        self._call.close()

    def _again(self, error: ChatError) -> None:
        """Waits and begins the next attempt. Raises the error when there is none."""
        self._call.close()
        try:
            if self._ending.wait(self._attempts.after(error)):
                if not self._closed:
                    raise Cancelled("CANCELLED", "request", "it was cancelled between two attempts")
                return
            self._call = self._start(self._attempts.left())  # an error of its own, a server that stays away, is final
        except ChatError:
            self._closed = True
            raise
        if self._ending.is_set():  # while the attempt began
            self._call.cancel()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_call"):  # the first attempt may have failed
            self.close()


class ChatClient:
    """A connection to one server; use it from any number of threads.

    Args:
        url: host:port of the gRPC endpoint.
        retry: how often a request is repeated while no sound of it was delivered; `NO_RETRY` for never.
        keepalive: when a dead connection is noticed.
        tls: certificates, for a server behind TLS; None speaks plain.
        headers: of every request; `token_headers` makes those of a token, `x-api-key` is counted by the server.
    """

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
        self._channel = open_channel(url, tls, keepalive)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def stream(
        self,
        audio: Audio = None,
        sample_rate: int = DEFAULT_RATE,
        text: str | None = None,
        messages: Sequence[Mapping[str, Any]] | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        **parameters: Scalar | None,
    ) -> ChatStream:
        """Sends one request and returns its answer as it is made.

        Args:
            audio: one clip or a list of the clips of a conversation in order. A clip is an array of any library,
                float in [-1, 1] or int8, uint8, int16, int32 at full scale, [samples] or with channels, which are
                mixed; a pair of such an array and its rate; or a sound file as a path, bytes or an open file,
                whose rate is then its own.
            sample_rate: of arrays that bring none; the server resamples.
            text: the user's words, or an instruction that follows the audio.
            messages: chat messages in the style of OpenAI, instead of `text` and `system`.
            outputs: names of the outputs wanted; None gets all.
            timeout: seconds for the whole answer, repeats included.
            parameters: mode, voice, system, max_tokens, seed, greedy, text_greedy, force_audio_start,
                temperature, top_p, top_k, repetition_penalty, hops, earliest, and priority ("interactive", or
                "batch" for what may wait); None leaves the server's default.

        Raises:
            ChatError: at once for arguments that cannot be sent and when a lost server stays away, while
                iterating for everything else.
        """
        request = make_request(audio, sample_rate, text, messages, outputs, parameters)
        return ChatStream(lambda left: self._begin(request, left), Attempts(self._retry, seconds("timeout", timeout)))

    def ask(self, audio: Audio = None, sample_rate: int = DEFAULT_RATE, **options: Any) -> Answer:
        """The whole answer at once; arguments as for `stream`."""
        with self.stream(audio, sample_rate, **options) as stream:
            return Answer().extend(stream)

    def close(self) -> None:
        """Closes the connection; requests that still run are cancelled."""
        self._channel.close()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self, request: Any, left: float | None) -> Call:
        if self._lost is not None:
            self._reconnect(self._lost, left)
        set_deadline(request, left)
        call = self._stub.ModelStreamInfer(iter((request,)), timeout=left, metadata=self._metadata)
        return Call(call, self.url, self._mark_lost)

    def _mark_lost(self, loss: ServerLost) -> None:
        self._lost = loss

    def _reconnect(self, loss: ServerLost, left: float | None) -> None:
        # After a loss gRPC refuses calls until its next attempt to connect, even when the server is back.
        patience = self._retry.reconnect_s if left is None else min(self._retry.reconnect_s, left)
        if not connects(self._channel, patience):
            raise stays_away(loss, self.url, patience, self._retry.reconnect_s)
        self._lost = None
