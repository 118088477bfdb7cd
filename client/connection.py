"""Opens connections to a server. Knows gRPC's options; knows nothing of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .access import Tls
from .address import DEFAULT_URL, is_address, is_near
from .errors import ChatError
from .protocol.wire import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MIN_PING_INTERVAL_MS

# After a restart of the server the next request should not wait for gRPC's default of up to two minutes.
MIN_RECONNECT_MS, MAX_RECONNECT_MS = 200, 1_000
# One attempt may last so long (gRPC's "min_reconnect_backoff"): a far server needs several round trips, more with TLS.
CONNECT_MS = 3_000
RECONNECT_S = (1.2 * MAX_RECONNECT_MS + CONNECT_MS) / 1000  # gRPC varies its delays by a fifth
# A connection without calls is closed. After a pause the way may be gone, which only data without an answer would show.
IDLE_MS = 60_000
UNLIMITED = -1  # 300 s of audio are 19 MB, gRPC's default limit is 4 MB


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A dead connection is noticed ``every_ms`` and ``timeout_ms`` after the last sign of life.

    While data is on its way, ``timeout_ms`` alone counts: a link that stalls for longer loses the answer. The
    defaults are the server's own (``protocol.wire``).
    """

    every_ms: int = KEEPALIVE_MS
    timeout_ms: int = KEEPALIVE_TIMEOUT_MS

    def __post_init__(self) -> None:
        if self.every_ms < MIN_PING_INTERVAL_MS:
            raise ValueError(
                f"every_ms: {self.every_ms} is below {MIN_PING_INTERVAL_MS}, and the server closes the "
                "connection of a client that pings faster"
            )
        if self.timeout_ms < 1:
            raise ValueError(f"timeout_ms: {self.timeout_ms} is below 1")


def check_url(url: str) -> None:
    """Raises ChatError for what is no address."""
    if not is_address(url):
        raise ChatError("INVALID_ARG", "url", f"{url!r} is no address; give host:port, as in {DEFAULT_URL}")


def channel_options(url: str, keepalive: KeepAlive) -> Sequence[tuple[str, int]]:
    """Options of a gRPC channel."""
    return (
        # gRPC would ask the proxy that `http_proxy` names for this machine, too.
        *((("grpc.enable_http_proxy", 0),) if is_near(url) else ()),
        ("grpc.max_send_message_length", UNLIMITED),
        ("grpc.max_receive_message_length", UNLIMITED),
        ("grpc.keepalive_time_ms", keepalive.every_ms),
        ("grpc.keepalive_timeout_ms", keepalive.timeout_ms),
        # Recent gRPC (seen with 1.85) measures every ping's answer by this one, whose default is a minute.
        ("grpc.http2.ping_timeout_ms", keepalive.timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
        ("grpc.client_idle_timeout_ms", IDLE_MS),
    )


def open_channel(url: str, tls: Tls | None = None, keepalive: KeepAlive | None = None) -> grpc.Channel:
    """A channel, with TLS or without. Raises ChatError for a url or a certificate that cannot be used."""
    check_url(url)
    options = channel_options(url, keepalive or KeepAlive())
    if tls is None:
        return grpc.insecure_channel(url, options)
    return grpc.secure_channel(url, credentials(tls), options)


def open_aio_channel(url: str, tls: Tls | None = None, keepalive: KeepAlive | None = None) -> grpc.aio.Channel:
    """The same for asyncio."""
    check_url(url)
    options = channel_options(url, keepalive or KeepAlive())
    if tls is None:
        return grpc.aio.insecure_channel(url, options)
    return grpc.aio.secure_channel(url, credentials(tls), options)


def connects(channel: grpc.Channel, within_s: float) -> bool:
    """Waits for a connection by a question that any answer will do for.

    ``grpc.channel_ready_future`` leaves a thread behind that dies with a traceback when the channel is closed.
    """
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    try:
        stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=within_s, wait_for_ready=True)
    except grpc.RpcError as error:
        return bool(error.code() != grpc.StatusCode.DEADLINE_EXCEEDED)
    return True


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Raises ChatError when a file cannot be read."""
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def _read(path: Path | str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ChatError("INVALID_ARG", "tls", f"{path}: {error.strerror}; give a PEM file") from None
