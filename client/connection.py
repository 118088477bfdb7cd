"""How a connection to the server is configured. Knows gRPC's options; knows nothing of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from client.access import Tls
from client.errors import ChatError
from runtime.keepalive import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MIN_PING_INTERVAL_MS

DEFAULT_URL = "127.0.0.1:8001"
# After a restart of the server the next request should not wait for gRPC's default of up to two minutes.
MIN_RECONNECT_MS, MAX_RECONNECT_MS = 200, 1_000
# One attempt may last so long (gRPC's "min_reconnect_backoff"): a far server needs several round trips, more with TLS.
CONNECT_MS = 5_000
RECONNECT_S = 3 * MAX_RECONNECT_MS / 1000  # gRPC varies its delays by a fifth, and an attempt takes time itself
UNLIMITED = -1  # 300 s of audio are 19 MB, gRPC's default limit is 4 MB


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A dead connection is noticed ``every_ms`` and ``timeout_ms`` after the last sign of life.

    The defaults are the server's own.
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


def channel_options(keepalive: KeepAlive) -> Sequence[tuple[str, int]]:
    """Options of a gRPC channel."""
    return (
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
    )


def open_channel(url: str, tls: Tls | None = None, keepalive: KeepAlive | None = None) -> grpc.Channel:
    """A channel, with TLS or without. Raises ChatError when a certificate cannot be read."""
    options = channel_options(keepalive or KeepAlive())
    if tls is None:
        return grpc.insecure_channel(url, options)
    return grpc.secure_channel(url, credentials(tls), options)


def open_aio_channel(url: str, tls: Tls | None = None, keepalive: KeepAlive | None = None) -> grpc.aio.Channel:
    """The same for asyncio."""
    options = channel_options(keepalive or KeepAlive())
    if tls is None:
        return grpc.aio.insecure_channel(url, options)
    return grpc.aio.secure_channel(url, credentials(tls), options)


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Raises ChatError when a file cannot be read."""
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def _read(path: Path | str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ChatError("INVALID_ARG", "tls", f"{path}: {error.strerror}; give a PEM file") from None
