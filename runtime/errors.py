"""Every error that may reach a client, and the one table from error to Triton status code.

A message reads ``CODE: field: what is wrong; what to do about it``. gRPC loses the status code of
an error inside a stream, so the code is also the first word of the message.
"""

from __future__ import annotations

NAME_CHARACTERS = 80


def client_name(name: str) -> str:
    """A name that a client chose, as it may stand as the field of an error: one line, no colon, valid UTF-8."""
    plain = "".join(c if c.isascii() and c.isprintable() and c != ":" else "?" for c in name[:NAME_CHARACTERS])
    return plain.strip() or "?"


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
