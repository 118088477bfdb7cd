"""Every way in which a request can fail, and the mapping from gRPC's errors to them.

The server writes `CODE: field: what is wrong; what to do about it`, because gRPC loses Triton's status
code inside a stream. Knows nothing of tensors.
"""

from __future__ import annotations

import re

import grpc

from runtime.errors import CODED, MEMORY_FULL

# Triton puts the request id before the message when the request has one.
_CODED = re.compile(rf"^(?:\[request id: [^\]]*\] )?{CODED.pattern}", re.S)


class ChatError(Exception):
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
    """The server answered with an error."""


class ServerLost(ChatError):
    """The server cannot be reached, or it went away in the middle of an answer."""


class Cancelled(ChatError):
    """The request was cancelled."""


class DeadlineExceeded(ChatError):
    """The answer took longer than the caller's timeout."""


def from_message(message: str) -> ServerError | None:
    """The typed error in a message of our server; None when it is somebody else's."""
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
    known = from_text(details, url)
    if known is not None:
        return known
    if status == grpc.StatusCode.CANCELLED:
        return Cancelled("CANCELLED", "request", "it was cancelled before the answer was complete")
    if status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("DEADLINE_EXCEEDED", "timeout", "the answer was not complete in time; allow more")
    if status == grpc.StatusCode.UNAVAILABLE:
        return lost(url, details)
    return ServerError(status.name if status else "UNKNOWN", "server", details or "the call failed without a word")


def lost(url: str, details: str) -> ServerLost:
    """The error for a server that is not there."""
    return ServerLost("UNAVAILABLE", "server", f"{url} cannot be reached or went away ({details}); is it running?")
