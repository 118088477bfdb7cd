"""Runs a command so that any failure is one line and an exit status above 0.

Needs nothing but the standard library, so that it also speaks where libraries are missing or broken.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable

from .errors import CodedError

FAILED, INTERRUPTED = 1, 130  # 130 = 128 + SIGINT, as shells count
TRACEBACK_VARIABLE = "FUN_AUDIO_CHAT_TRACEBACK"


def run_command(program: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status.

    Characters that the terminal cannot show are printed as escapes. With the environment variable
    FUN_AUDIO_CHAT_TRACEBACK errors that nothing expected keep their traceback.
    """
    _show_all_characters()
    try:
        status = program() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("CANCELLED: command: interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return _fail("INTERNAL: output: the program that read it has gone", FAILED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _fail(describe(error), FAILED)


def describe(error: Exception) -> str:
    """An error as one line with its cause and a remedy."""
    if isinstance(error, CodedError):
        return str(error)
    kind, words = type(error).__name__, str(error) or "no further words"
    if isinstance(error, ImportError):
        return f"INTERNAL: libraries: {words}; install it again, in a checkout: make setup (make doctor says more)"
    if isinstance(error, MemoryError):
        return f"INTERNAL: memory: {words}; close other programs or use a larger machine"
    if isinstance(error, OSError):
        return f"INTERNAL: system: {words}; mend that and try again"
    return f"INTERNAL: {kind}: {words}; unexpected, {TRACEBACK_VARIABLE}=1 shows where it comes from: please report it"


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, or was closed
        print(" ".join(message.split()), file=sys.stderr, flush=True)
    return status


def _show_all_characters() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What the buffer still holds goes nowhere: at exit Python would try again, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
