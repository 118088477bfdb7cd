"""The errors that a request can raise, and the mapping from gRPC's errors to them.

The server writes `CODE: field: what is wrong; what to do about it`, because gRPC loses Triton's status
code inside a stream. Knows nothing of tensors.
"""

from __future__ import annotations

import re

import grpc

from .address import proxy_variable
from .protocol.errors import CODED, MEMORY_FULL, RETRY_HINT, CodedError

# Triton puts the request id before the message when the request has one.
_CODED = re.compile(rf"^(?:\[request id: [^\]]*\] )?{CODED.pattern}", re.S)
_RESTRICTED = "protocol is restricted"  # Triton's words for a missing or wrong token
_CONNECTING, _CLOSED = "failed to connect", ("Socket closed", "reset by peer")
# A proxy ends a stream in these ways when the server behind it is gone; gRPC gives them any status.
_TORN = ("RST_STREAM", "Data frame with END_STREAM")
# Signs in gRPC's account of a failed handshake, and what to do.
_HANDSHAKE = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS; leave tls out (--tls, --ca, --cert)",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not signed by a known authority; give its authority "
    "(Tls(ca=...), --ca)",
    "Peer name": "the server's certificate is for another name; use the name that it was made for in the url",
    "Hostname Verification": "the server's certificate is for another name; use the name that it was made for in the "
    "url",
    "CERTIFICATE_REQUIRED": "the server wants a certificate; give one (Tls(cert=..., key=...), --cert, --key)",
}


class ChatError(CodedError):
    """Base of all errors of this client.

    Args:
        code: `INVALID_ARG`, `NOT_FOUND`, `UNAVAILABLE`, `CANCELLED`, `INTERNAL`, or a name of gRPC.
        field: the input or parameter at fault, or the part of the system.
        message: what is wrong and what to do about it.
    """

    def __init__(self, code: str, field: str, message: str) -> None:
        self.code, self.field, self.message = code, field, message
        super().__init__(f"{code}: {field}: {message}")


class ServerError(ChatError):
    """The server answered with an error. Of a refusal for want of room, `field` is the bound that was met."""

    @property
    def retry_after_s(self) -> float | None:
        """When the server says that another attempt is worth while; None when it does not say."""
        hint = RETRY_HINT.search(self.message)
        return float(hint["seconds"]) if hint else None


class ServerLost(ChatError):
    """The server cannot be reached, or it went away in the middle of an answer.

    Args:
        reason: in gRPC's words.
        away: no connection came back for as long as the client's policy waits.
    """

    def __init__(self, code: str, field: str, message: str, reason: str = "", away: bool = False) -> None:
        super().__init__(code, field, message)
        self.reason, self.away = reason, away


class AccessDenied(ChatError):
    """The server, or a proxy before it, refuses the caller: TLS, certificate or token. Repeating cannot help."""


class Cancelled(ChatError):
    """The request was cancelled."""


class DeadlineExceeded(ChatError):
    """The answer took longer than the caller's timeout."""


def cancelled() -> Cancelled:
    """The error of a request that the caller ended."""
    return Cancelled("CANCELLED", "request", "it was cancelled before the answer was complete")


def from_message(message: str) -> ServerError | None:
    """The typed error in a message of our server; None when its form is another."""
    match = _CODED.match(message)
    return ServerError(match["code"], match["field"], match["rest"]) if match else None


def from_text(details: str, url: str) -> ChatError | None:
    """The typed error in a message of our server or of Triton; None when it says nothing that we know."""
    coded = from_message(details)
    if coded is not None:
        return Cancelled(coded.code, coded.field, coded.message) if coded.code == "CANCELLED" else coded
    if MEMORY_FULL in details:
        return ServerError("UNAVAILABLE", "server", f"the shared memory of {url} is full; the operator gives it more")
    if "unknown model" in details or "is not ready" in details:
        return ServerError("UNAVAILABLE", "server", f"the model is not loaded (yet) at {url}: {details}")
    return None


def from_rpc(error: grpc.RpcError, url: str) -> ChatError:
    """The typed error of a failed call."""
    status, details = error.code(), error.details() or ""
    known = _denied(status, details, url) or from_text(details, url)
    if known is not None:
        return known
    if any(sign in details for sign in _TORN):
        return lost(url, details)
    if status == grpc.StatusCode.CANCELLED:
        return cancelled()
    if status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("DEADLINE_EXCEEDED", "timeout", "the answer was not complete in time; allow more")
    if status == grpc.StatusCode.UNAVAILABLE:
        return lost(url, details)
    return ServerError(status.name if status else "UNKNOWN", "server", details or "the call failed without a word")


def _denied(status: grpc.StatusCode, details: str, url: str) -> AccessDenied | None:
    """The typed error of a caller who is refused; None for any other failure."""
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or _RESTRICTED in details:
        return AccessDenied(
            "UNAUTHENTICATED", "authorization", f"{url} takes no request without its token, or not with this one; "
            "give the right one (token_headers, --token)",
        )  # fmt: skip
    remedy = next((words for sign, words in _HANDSHAKE.items() if sign in details), None)
    return None if remedy is None else AccessDenied("UNAUTHENTICATED", "tls", f"{url}: {remedy}")


def stays_away(loss: ServerLost, url: str, waited_s: float, patience_s: float) -> ServerLost:
    """The error for a server that did not come back after a loss."""
    details = f"no connection within {waited_s:.3g} s after it was lost: {loss.reason}"
    return lost(url, details, away=waited_s >= patience_s)


def lost(url: str, details: str, away: bool = False) -> ServerLost:
    """The error for a server that is not there."""
    # A connection that is closed before its first word: a server that dies, or one that expects TLS.
    unheard = _CONNECTING in details and any(sign in details for sign in _CLOSED)
    hint = " If it speaks TLS, give tls (--tls, --ca), and a certificate if it asks for one (--cert, --key)"
    proxy = proxy_variable(url) if _CONNECTING in details else None
    way = f" The way to it may be the proxy that {proxy} names; no_proxy excepts hosts" if proxy else ""
    message = f"{url} cannot be reached or went away ({details}); is it running?{hint if unheard else ''}{way}"
    return ServerLost("UNAVAILABLE", "server", message, details, away)
