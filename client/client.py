"""The client: one gRPC stream per request, typed chunks out, typed errors, cancellation that arrives.

It speaks through the generated gRPC classes of `tritonclient`: a plain call object can be cancelled,
has a deadline and keeps the server's status, none of which a shared stream with callbacks gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from client.chunks import Chunk, chunk_of
from client.errors import Cancelled, ServerError, ServerLost, from_message, from_rpc, lost
from client.request import DEFAULT_RATE, FINAL_RESPONSE, Audio, Scalar, make_request

DEFAULT_URL = "127.0.0.1:8001"
# Without this header Triton reports errors inside the stream and their status code is lost.
GRPC_ERRORS = (("triton_grpc_error", "true"),)
KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
# After a restart of the server the next request should not wait for gRPC's default of up to two minutes.
MIN_RECONNECT_MS, MAX_RECONNECT_MS = 200, 1_000
RECONNECT_S = 3 * MAX_RECONNECT_MS / 1000  # gRPC varies its delays by a fifth, and an attempt takes time itself
UNLIMITED = -1  # 300 s of audio are 19 MB, gRPC's default limit is 4 MB


class ChatStream(Iterator[Chunk]):
    """One running answer: iterate over it, or end it early with `cancel` or `close`.

    `cancel` may come from any thread; the iteration then raises `Cancelled`. Leaving a `with` block,
    `close` and dropping the last reference cancel too, without an error.
    """

    def __init__(self, call: Any, url: str, on_lost: Callable[[], None]) -> None:
        self._call, self._url, self._on_lost = call, url, on_lost
        self._done = False  # nothing more to give
        self._answered = False  # the last response was seen, the call itself may still be closing

    def __next__(self) -> Chunk:
        while not self._done and not self._answered:
            chunk = self._receive()
            if chunk is not None:
                return chunk
        self.close()
        raise StopIteration

    def cancel(self) -> None:
        """Ends the request; the server frees what it holds within a frame."""
        if not self._answered:
            self._call.cancel()

    def close(self) -> None:
        """Cancels the request when it still runs; the iteration ends."""
        if self._done:
            return
        self._done = True
        if self._answered:
            self._read_out()
        else:
            self._call.cancel()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _receive(self) -> Chunk | None:
        try:
            response = next(self._call)
        except StopIteration:
            self._done = True
            raise lost(self._url, "the stream ended without its last response") from None
        except grpc.RpcError as error:
            if self._done:  # closed by another thread
                raise StopIteration from None
            self._done = True
            typed = from_rpc(error, self._url)
            if isinstance(typed, ServerLost):
                self._on_lost()
            raise typed from None
        if response.error_message:
            self._done = True
            raise _stream_error(response.error_message)
        answer = response.infer_response
        self._answered = answer.parameters[FINAL_RESPONSE].bool_param
        return chunk_of(answer)

    def _read_out(self) -> None:
        # Triton mishandles a cancellation that meets the end of a call, so a finished call is left to
        # end by itself, which takes it about a millisecond.
        with contextlib.suppress(grpc.RpcError):
            for _ in self._call:
                pass


def _stream_error(message: str) -> ServerError | Cancelled:
    error = from_message(message) or ServerError("UNKNOWN", "server", message)
    return Cancelled(error.code, error.field, error.message) if error.code == "CANCELLED" else error


class ChatClient:
    """A connection to one server; use it from any number of threads.

    Args:
        url: host:port of the gRPC endpoint.
        keepalive_ms: a dead connection is noticed after this time and `keepalive_timeout_ms`.
        credentials: of `grpc.ssl_channel_credentials`, for a server behind TLS.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        keepalive_ms: int = KEEPALIVE_MS,
        keepalive_timeout_ms: int = KEEPALIVE_TIMEOUT_MS,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.url = url
        self._lost = False
        options = [
            ("grpc.max_send_message_length", UNLIMITED),
            ("grpc.max_receive_message_length", UNLIMITED),
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", keepalive_timeout_ms),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", MIN_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
        ]
        if credentials is None:
            self._channel = grpc.insecure_channel(url, options)
        else:
            self._channel = grpc.secure_channel(url, credentials, options)
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
            audio: one clip or the clips of a conversation in order, mono, float in [-1, 1] or int16.
            sample_rate: of the clips; the server resamples.
            text: the user's words, or an instruction that follows the audio.
            messages: chat messages in the style of OpenAI, instead of `text` and `system`.
            outputs: names of the outputs wanted; None gets all.
            timeout: seconds for the whole answer.
            parameters: mode, voice, system, max_tokens, seed, greedy, text_greedy, force_audio_start,
                temperature, top_p, top_k, repetition_penalty; None leaves the server's default.

        Raises:
            ChatError: at once for arguments that cannot be sent and when a lost server stays away, while
                iterating for everything else.
        """
        request = make_request(audio, sample_rate, text, messages, outputs, parameters)
        if self._lost:
            self._reconnect()
        call = self._stub.ModelStreamInfer(iter((request,)), timeout=timeout, metadata=GRPC_ERRORS)
        return ChatStream(call, self.url, self._mark_lost)

    def close(self) -> None:
        """Closes the connection; requests that still run are cancelled."""
        self._channel.close()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mark_lost(self) -> None:
        self._lost = True

    def _reconnect(self) -> None:
        # After a loss gRPC refuses calls until its next attempt to connect, even when the server is back.
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=RECONNECT_S)
        except grpc.FutureTimeoutError:
            raise lost(self.url, f"no connection within {RECONNECT_S:g} s after it was lost") from None
        finally:
            ready.cancel()
        self._lost = False
