"""What is written down about an unexpected exception: its kind and its place, never what it says.

An exception's message may hold what a user said or wrote (a key that was not found, bytes that could not be
decoded), and logs never do. The code that it came from, line by line, tells as much without.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path


def kind(error: BaseException) -> str:
    """The exception's class and where it was raised, safe to be logged and to be sent to any client."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def log_fault(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Logs an exception and its causes without their messages."""
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        lines += [f"  {Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(cause.__traceback__)]
        lines.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    logger.error("%s: %s\n%s", what, kind(error), "\n".join(lines))
