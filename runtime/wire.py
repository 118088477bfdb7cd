"""Names of the headers that the server, its clients and its operators agree on."""

from __future__ import annotations

KEY_HEADER = "x-api-key"  # Triton forwards it as a request parameter of this name
TOKEN_HEADER = "authorization"
ADMIN_HEADER = "x-admin-key"
GRPC_PREFIX = "triton-grpc-protocol-"  # before the names that Triton's gRPC endpoint checks


def bearer(token: str) -> str:
    """Value of the authorization header."""
    return f"Bearer {token}"


def token_headers(token: str) -> dict[str, str]:
    """What carries a token: the common header, which a proxy reads, and Triton's own."""
    return {TOKEN_HEADER: bearer(token), GRPC_PREFIX + TOKEN_HEADER: bearer(token)}
