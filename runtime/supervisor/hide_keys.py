"""Keys off the process list. Triton takes them on its command line only, which every user of a machine can read.

tritonserver copies its arguments when it starts, so their memory may be overwritten afterwards. Linux lets
the parent do that. Until then, a second or two, and for root always, they are to be seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

AFTER_NAME = 3  # fields of /proc/<pid>/stat are counted from 1, and the third follows the name
ARG_START, ARG_END = 48, 49
COVER = b"*"


def hide_arguments(pid: int, hidden: Iterable[str]) -> bool:
    """Overwrites these words in the command line of a child; whether none of them is left there.

    A kernel that forbids it, and a child that is gone, are no errors.
    """
    words = [word.encode() for word in hidden if word]
    with contextlib.suppress(OSError):
        begin, end = _bounds(pid)
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            line = memory.read(end - begin)
            for word in words:
                line = line.replace(word, COVER * len(word))
            memory.seek(begin)
            memory.write(line)
    try:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return not any(word in shown for word in words)


def _bounds(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[ARG_START - AFTER_NAME]), int(fields[ARG_END - AFTER_NAME])
