"""Writes to a terminal, a pipe or a log. What these cannot take never ends an answer."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

ESCAPED = "backslashreplace"


class Screen:
    """A stream for people. Characters that it cannot show become escapes; once it is gone, writing does nothing.

    ``failure``: what a writing met that was not the end of a reader, such as a full disk; None without.
    """

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self.failure: OSError | None = None
        if out is not None and hasattr(out, "reconfigure"):
            out.reconfigure(errors=ESCAPED)

    def write(self, text: str) -> int:
        """Writes text, as far as the stream lives."""
        if self._out is not None:
            try:
                self._out.write(shown(text, getattr(self._out, "encoding", None)))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Writes out what is waiting."""
        if self._out is not None:
            try:
                self._out.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def say(self, message: str) -> None:
        """Writes one line."""
        self.write(" ".join(message.split()) + "\n")
        self.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._out is not None and self._out.isatty()

    def _lose(self, error: OSError | ValueError) -> None:
        out, self._out = self._out, None
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            self.failure = error
        # Python writes out what is waiting once more when it ends, and would complain.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, out.fileno())  # type: ignore[union-attr]
            os.close(nothing)


def shown(text: str, encoding: str | None) -> str:
    """Text with escapes for what an encoding lacks."""
    name = encoding or "utf-8"
    return text.encode(name, ESCAPED).decode(name)


def screens() -> tuple[Screen, Screen]:
    """Standard output and standard error."""
    return Screen(sys.stdout), Screen(sys.stderr)
