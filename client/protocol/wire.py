"""What server, clients and operators agree on about a connection: headers and keepalive.

An idle peer is given up after ``KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS``, one that owes an acknowledgement of data
after the second alone: gRPC makes it the socket's TCP_USER_TIMEOUT, and the answer to a ping queues behind megabytes
of sound. So it must be longer than a link stalls or a full buffer takes to drain (with 5 s, an answer at 1 Mbit/s
and one that stalled for 4 s were lost). The server counts pings that come more often than ``MIN_PING_INTERVAL_MS``
as abuse and closes the connection, so no client may ping faster.
"""

from __future__ import annotations

import ipaddress

KEY_HEADER = "x-api-key"  # Triton forwards it as a request parameter of this name
TOKEN_HEADER = "authorization"
ADMIN_HEADER = "x-admin-key"
GRPC_PREFIX = "triton-grpc-protocol-"  # before the names that Triton's gRPC endpoint checks

KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 20_000
MIN_PING_INTERVAL_MS = 5_000

LOCAL_NAME = "localhost"


def bearer(token: str) -> str:
    """Value of the authorization header."""
    return f"Bearer {token}"


def token_headers(token: str) -> dict[str, str]:
    """What carries a token: the common header, which a proxy reads, and Triton's own."""
    return {TOKEN_HEADER: bearer(token), GRPC_PREFIX + TOKEN_HEADER: bearer(token)}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == LOCAL_NAME
