"""Freed memory goes back to the system. Linux with glibc."""

import ctypes
import subprocess
import sys
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


@pytest.mark.parametrize("apart", [False, True])
def test_garbage_of_requests_is_found_soon_beside_much_that_lives(apart):
    """In a process of its own: what is set apart stays so."""
    program = f"""
import gc
from runtime.heap import set_apart
lives = [[] for _ in range(300_000)]
gc.collect()
if {apart}:
    set_apart()
before = gc.get_stats()[2]["collections"]
for _ in range(300):  # requests that live long enough to grow old and leave cycles
    request = [[] for _ in range(100)]
    for part in request:
        part.append(part)
    younger = [[] for _ in range(2_000)]
    del request, younger
raise SystemExit(gc.get_stats()[2]["collections"] - before)
"""
    found = subprocess.run([sys.executable, "-c", program], check=False).returncode
    assert (found > 0) == apart


def test_only_now_and_then():
    assert not HeapTrim(every_s=100.0).tick()
