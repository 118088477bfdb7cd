"""Tells which files of a folder are sound that can be read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import soundfile

from .mpeg import chain_at
from .starts import begins
from .tags import ID3V2

HEADLESS = "RAW"  # nothing says what its numbers mean
# Usual endings of what libsndfile reads, beside the names of its formats.
ALIASES = (
    "wave", "bwf", "aif", "aifc", "snd", "oga", "opus", "ogx", "mp1", "mp2", "mpga", "sph", "sf", "iff", "8svx", "16sv",
    "mat", "fap",
)  # fmt: skip
HEAD = 16 * 1024


def is_sound(path: Path) -> bool:
    """By its name, or by how its content begins."""
    if path.suffix.lower() in _suffixes():
        return True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return begins(head) or head.startswith(ID3V2) or chain_at(head, 0, len(head))


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    formats = (name.lower() for name in soundfile.available_formats() if name != HEADLESS)
    return frozenset(f".{name}" for name in (*formats, *ALIASES))
