"""Keeps what the MP3 decoder writes to stderr out of a user's terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from threading import Lock

# Lines of libmpg123, which libsndfile does not silence: "[src/libmpg123/...", "Warning: ...", "Note: ...".
_DECODER = re.compile(rb"^(?:\[\S*mpg123|Warning: |Note: |\s*$|.*\b(?:libmpg123|mpg123)\b).*\n?", re.M)
STDERR = 2
_lock = Lock()


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Within it stderr loses what the decoder writes; all else appears afterwards. For command lines only.

    The descriptor is the process's own: a library must not turn it away under a program that uses it.
    """
    with _lock, contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            kept = os.dup(STDERR)
            stack.callback(os.close, kept)
            caught = stack.enter_context(tempfile.TemporaryFile())
        except (OSError, AttributeError):  # there is no stderr
            yield
            return
        os.dup2(caught.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(kept, STDERR)
            caught.seek(0)
            with contextlib.suppress(OSError):
                os.write(STDERR, _DECODER.sub(b"", caught.read()))
