"""Checks addresses of gRPC, tells which are on this machine, and which proxy gRPC would ask for the others."""

from __future__ import annotations

import os
import re

from .protocol.wire import is_loopback

DEFAULT_URL = "127.0.0.1:8001"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# host:port, [IPv6]:port, or a name with one of gRPC's own schemes.
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[^\s/\[\]]+\]):\d{1,5}|(?:unix|unix-abstract|vsock|dns|ipv4|ipv6):\S+")
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC reads these, in lower case, in this order


def is_address(url: str) -> bool:
    """Whether gRPC takes it for what its user means: without a port it would go to 443, `http:` is a name to it."""
    return _ADDRESS.fullmatch(url) is not None


def is_near(url: str) -> bool:
    """Whether the server is on this machine."""
    return url.startswith("unix") or is_loopback(url.rpartition(":")[0])


def proxy_variable(url: str) -> str | None:
    """The environment variable whose proxy gRPC may ask for this address; None when there is none."""
    return None if is_near(url) else next(filter(os.environ.get, _PROXY_VARIABLES), None)
