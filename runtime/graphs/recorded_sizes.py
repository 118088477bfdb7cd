"""Sizes that device graphs are recorded for: rules that round a call's up, and one call of every size that is left.

A rule keeps the number of recordings small and bounded. So all of them are made before a stage is ready, and
no stream pays for one.
"""

from __future__ import annotations


def power_of_two(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def powers_down(most: int) -> list[int]:
    """All powers of two up to the one that holds ``most``, the largest first."""
    return [1 << n for n in reversed(range((most - 1).bit_length() + 1))]
