"""Every error that may reach a client, and the one table from error to Triton status code.

Their form, ``CODE: field: what is wrong; what to do about it``, is shared with the client (``client.protocol.errors``).
"""

from __future__ import annotations

import re

from client.protocol.errors import CODED, CODES, MEMORY_FULL, CodedError

NAME_CHARACTERS = 80


def client_name(name: str) -> str:
    """A name that a client chose, as it may stand as the field of an error: one line, no colon, valid UTF-8."""
    plain = "".join(c if c.isascii() and c.isprintable() and c != ":" else "?" for c in name[:NAME_CHARACTERS])
    return plain.strip() or "?"


class ServeError(CodedError):
    """Base of all typed errors. Use a subclass.

    Args:
        field: name of the input, parameter or part at fault.
        problem: what is wrong with it, with the offending value where it is short.
        remedy: what the caller can do about it.
    """

    code = "INTERNAL"

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        self.field, self.problem, self.remedy = field, problem, remedy
        super().__init__(f"{self.code}: {field}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[type[ServeError], tuple[object, ...]]:
        """So that an error may come from another process."""
        return type(self), (self.field, self.problem, self.remedy)


# What admission refuses for. An expected wait that is too long: no slot, no KV blocks of one of the caches;
# the queue is full; a request of the higher class took the place; it waited too long.
OVERLOADS = ("slots", "queue", "displaced", "wait")  # and what is scarce of a model's caches, by its name


class InvalidRequest(ServeError):
    """The request itself is wrong: repeating it cannot help."""

    code = "INVALID_ARG"


class NotFound(ServeError):
    """A named thing (voice, file, model) does not exist."""

    code = "NOT_FOUND"


class Overloaded(ServeError):
    """No room now; the same request may succeed later.

    Args:
        field: the bound that was met, a word of ``OVERLOADS`` where admission refuses.
        retry_after_s: when it is worth trying again; then the remedy reads ``retry in 2.5 s``.
    """

    code = "UNAVAILABLE"

    def __init__(self, field: str, problem: str, remedy: str = "", retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(field, problem, remedy if retry_after_s is None else f"retry in {retry_after_s:.1f} s")

    def __reduce__(self) -> tuple[type[ServeError], tuple[object, ...]]:
        return type(self), (self.field, self.problem, self.remedy, self.retry_after_s)


class Draining(Overloaded):
    """This server is about to stop and takes nothing new."""


class Cancelled(ServeError):
    """The client ended the request."""

    code = "CANCELLED"


class EngineFault(ServeError):
    """A stage failed through no fault of the request."""

    code = "INTERNAL"


class BuildError(ServeError):
    """A checkpoint or a built folder does not fit; raised by builders and at server start."""

    code = "INTERNAL"


class AlreadyServed(ServeError):
    """Another supervisor runs on the same built folder."""

    code = "UNAVAILABLE"


TRITON_CODES = {code: code for code in CODES}  # code -> name in triton_python_backend_utils.TritonError
_MODEL = re.compile(r"model '(?P<name>\w+?)(?:_\d+)*'")


def stage_fault(message: str, stage: str) -> ServeError:
    """The error for a client whose request met a failed stage.

    Args:
        message: what the stage, or Triton in its place, answered; names the stage when it is ours.
        stage: what was called.
    """
    if MEMORY_FULL in message:
        at = _MODEL.search(message.rpartition("message:")[0])
        return Overloaded(at["name"] if at else stage, "shared memory is full", "retry; the operator gives it more")
    match = CODED.search(message)
    field, problem = (match["field"], match["rest"].partition(";")[0]) if match else (stage, message)
    return EngineFault(field, problem, "this is a fault of the server: send the request again, and see its log")
