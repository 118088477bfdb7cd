"""Freed memory goes back to the system. Linux with glibc."""

import ctypes
from pathlib import Path

import pytest

from runtime.heap import HeapTrim

MB = 2**20


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MB


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_a_heap_with_holes_gives_its_pages_back():
    pieces = [bytearray(64 * 1024) for _ in range(1600)]  # 100 MB below the size that glibc maps apart
    full = resident_mb()
    keep = pieces[-1]  # holds the top, so that nothing is given back by itself
    del pieces
    held = resident_mb()
    assert HeapTrim(every_s=0.0).tick()
    assert held > full - 20 and resident_mb() < held - 60
    assert keep


def test_only_now_and_then():
    assert not HeapTrim(every_s=100.0).tick()
