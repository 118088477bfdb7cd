"""TLS and headers of a connection, and how they are given on a command line. Runs without gRPC."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .protocol.wire import token_headers

_NAME, _VALUE = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[ -~]*")
TOKEN_VARIABLE = "FUN_AUDIO_CHAT_TOKEN"


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates in PEM files.

    Args:
        ca: authority of the server's certificate; None takes those that gRPC brings.
        cert: own certificate, for a server that asks for one.
        key: its private key.
    """

    ca: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls: a certificate and its key belong together; give both or none")


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller brings to a server: TLS or none, and headers of every request."""

    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


OPEN = Access()


def metadata_of(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC takes them; it knows no upper case in names.

    Raises:
        ChatError: it could not send one of them.
    """
    from .errors import ChatError  # it brings gRPC, which may be broken where `doctor` looks for that

    for name, value in (headers or {}).items():
        if not _NAME.fullmatch(str(name).lower()) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            problem = f"{str(name)!a:.40} or its value holds what no header can; give printable ASCII"
            raise ChatError("INVALID_ARG", "headers", problem)
    return tuple((name.lower(), value) for name, value in (headers or {}).items())


def add_access(parser: argparse.ArgumentParser) -> None:
    """The options of a command that talks to a server."""
    group = parser.add_argument_group("access")
    group.add_argument("--tls", action="store_true", help="the server speaks TLS; implied by the next three")
    group.add_argument("--ca", type=Path, help="PEM file of the authority of its certificate")
    group.add_argument("--cert", type=Path, help="own certificate (PEM), for a server that asks for one")
    group.add_argument("--key", type=Path, help="its private key (PEM)")
    group.add_argument("--token", help=f"token of the server (default: variable {TOKEN_VARIABLE})")
    group.add_argument("--header", action="append", default=[], metavar="NAME=VALUE",
                       help="one more header of every request, such as x-api-key=...")  # fmt: skip


def access_of(options: argparse.Namespace) -> Access:
    """What the options say.

    Raises:
        ValueError: one of them cannot be used.
    """
    token = options.token or os.environ.get(TOKEN_VARIABLE)
    headers = token_headers(token) if token else {}
    for given in options.header:
        name, equals, value = given.partition("=")
        if not name or not equals:
            raise ValueError(f"header: {name!r} has no value; give NAME=VALUE")
        headers[name] = value
    with_tls = options.tls or options.ca or options.cert or options.key
    return Access(Tls(options.ca, options.cert, options.key) if with_tls else None, headers)
