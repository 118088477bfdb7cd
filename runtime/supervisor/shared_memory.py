"""The Python backend's regions below /dev/shm: named by us, so that a killed server leaves none.

Each run of a server gets its own prefix, written down in the run folder before the server starts;
the next server of that folder removes what the last one left. A prefix is random because
containers may share /dev/shm and nothing else.
"""

from __future__ import annotations

import secrets
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX_FILE = "shm_prefix"
PREFIX_HEAD = "fac_"
TOKEN_BYTES = 6


def new_prefix(run: Path) -> str:
    """A fresh prefix, remembered in the run folder; regions of the remembered one are removed."""
    remove_regions(run)
    prefix = f"{PREFIX_HEAD}{secrets.token_hex(TOKEN_BYTES)}_"
    (run / PREFIX_FILE).write_text(prefix, "utf-8")
    return prefix


def regions(prefix: str, folder: Path = SHARED_MEMORY) -> list[Path]:
    """The regions with this prefix."""
    return sorted(folder.glob(f"{prefix}*")) if folder.is_dir() else []


def remove_regions(run: Path, folder: Path = SHARED_MEMORY) -> int:
    """Removes the regions of the run that the run folder remembers; returns how many."""
    try:
        prefix = (run / PREFIX_FILE).read_text("utf-8")
    except FileNotFoundError:
        return 0
    removed = 0
    # A damaged file must not make us remove other programs' regions.
    if prefix.startswith(PREFIX_HEAD) and len(prefix) > len(PREFIX_HEAD) + TOKEN_BYTES:
        for region in regions(prefix, folder):
            region.unlink(missing_ok=True)
            removed += 1
    (run / PREFIX_FILE).unlink(missing_ok=True)
    return removed
