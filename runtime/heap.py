"""What is no longer used goes back to the system, and soon.

glibc keeps what calls of uneven sizes leave behind, so its heap creeps up for hours without any leak. Python looks
for garbage in old objects only when there are a quarter more of them, and then at all of them.
"""

from __future__ import annotations

import ctypes
import gc
import time

EVERY_S = 10.0  # a trim takes about 13 ms where it gives 100 MB back, and next to nothing where there is nothing


def set_apart() -> None:
    """Takes what exists now, modules and models, out of the garbage collector's sight. Call once, after loading.

    What requests leave behind is then found after hundreds of them instead of thousands, and finding it looks at
    little: a look at every object of every library would hold all threads up.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # counts what is left: a quarter of it decides when to look again


class HeapTrim:
    """Trims the heap of this process now and then. Does nothing under a C library without ``malloc_trim``."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s, self._last = every_s, time.monotonic()
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def tick(self) -> bool:
        """Called often, from one thread; whether this call trimmed."""
        now = time.monotonic()
        if self._trim is None or now - self._last < self._every_s:
            return False
        self._last = now
        self._trim(0)
        return True
