"""Every error that may reach a client, and the one table from error to Triton status code.

A message reads ``CODE: field: what is wrong; what to do about it``. gRPC loses the status code of
an error inside a stream, so the code is also the first word of the message.
"""

from __future__ import annotations

import re


class ServeError(Exception):
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

    def __reduce__(self) -> tuple[type[ServeError], tuple[str, str, str]]:
        """So that an error may come from another process."""
        return type(self), (self.field, self.problem, self.remedy)


class InvalidRequest(ServeError):
    """The request itself is wrong: repeating it cannot help."""

    code = "INVALID_ARG"


class NotFound(ServeError):
    """A named thing (voice, file, model) does not exist."""

    code = "NOT_FOUND"


class Overloaded(ServeError):
    """No room now; the same request may succeed later."""

    code = "UNAVAILABLE"


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


# Names are those of triton_python_backend_utils.TritonError and of gRPC's StatusCode.
TRITON_CODES: dict[str, str] = {
    "INVALID_ARG": "INVALID_ARG",
    "NOT_FOUND": "NOT_FOUND",
    "UNAVAILABLE": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
    "INTERNAL": "INTERNAL",
}
CODED = re.compile(rf"(?P<code>{'|'.join(TRITON_CODES)}): (?P<field>[^:]+): (?P<rest>.*)$", re.S)


MEMORY_FULL = "shared memory pool"  # in Triton's words for it, which name regions and paths
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
