"""The model's side of the run folder: orders to drain, the count of what is live, signs of life."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from runtime.run_folder import DRAIN_FILE, HEARTBEAT_FILE, LIVE_FILE, replace_text


class Orders:
    """What the supervisor asks for and is told.

    Args:
        folder: the run folder; made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.heartbeat = folder / HEARTBEAT_FILE
        self._drain, self._live = folder / DRAIN_FILE, folder / LIVE_FILE
        self._shown = -1

    @property
    def draining(self) -> bool:
        """Whether new requests are to be refused."""
        return self._drain.exists()

    @property
    def overdue(self) -> bool:
        """Whether live requests have had their time."""
        try:
            text = self._drain.read_text("utf-8")
        except FileNotFoundError:
            return False
        return bool(text) and time.monotonic() >= float(text)

    def show(self, live: int) -> None:
        """Writes the number of live requests: when it changes, and while draining again and again.

        The supervisor believes a zero only when it was written after the drain began. A full disk ends no
        service: then it waits for the whole grace period.
        """
        if live != self._shown or self.draining:
            self._shown = live
            with contextlib.suppress(OSError):
                replace_text(self._live, str(live))


class Pulse:
    """Says whether a thread still comes round.

    Args:
        longest_s: between two beats of a living thread.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s, self._last = longest_s, time.monotonic()

    def beat(self) -> None:
        """Call again and again."""
        self._last = time.monotonic()

    def beats(self) -> bool:
        """Whether the last beat is not long ago. Any thread may ask."""
        return time.monotonic() - self._last <= self._longest_s
