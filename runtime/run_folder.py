"""The run folder: small files through which the supervisor and the public model speak.

`heartbeat`  the frame loop touches it about once a second.
`drain`      made by the supervisor: the model refuses new requests from then on, and at the moment that the file
             holds (seconds of CLOCK_MONOTONIC) it ends what is still live.
`live`       the model writes the number of live streams, on change and, during a drain, at every poll.
`lock`       held by the supervisor that serves the folder; the kernel frees it when that one dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from runtime.errors import AlreadyServed

RUN_FOLDER = "run"
HEARTBEAT_FILE = "heartbeat"
DRAIN_FILE = "drain"
LIVE_FILE = "live"
LOCK_FILE = "lock"


class RunFolder:
    """The supervisor's end: the control files of one built folder, locked for one supervisor."""

    def __init__(self, out: Path) -> None:
        self.path = out / RUN_FOLDER
        self._lock: int | None = None
        self._live_before: int | None = None  # when the count was last written before the drain

    def acquire(self) -> None:
        """Makes the folder and locks it.

        Raises:
            AlreadyServed: another supervisor holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode(errors="replace").strip()
            os.close(lock)
            raise AlreadyServed(
                "out", f"{self.path.parent} is being served by process {holder or 'unknown'}", "stop that one first"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def reset(self) -> None:
        """Removes what the last run of the server said."""
        for name in (HEARTBEAT_FILE, DRAIN_FILE, LIVE_FILE):
            (self.path / name).unlink(missing_ok=True)

    def heartbeat(self) -> int | None:
        """When the frame loop last lived, in nanoseconds of the file's clock; None without a file."""
        return self._written(HEARTBEAT_FILE)

    def begin_drain(self, grace_s: float) -> None:
        """From now on the public model refuses new requests; after ``grace_s`` it ends the live ones. Repeatable."""
        try:
            replace_text(self.path / DRAIN_FILE, str(time.monotonic() + grace_s))
        except OSError:  # a full disk: an empty file takes no room, and refuses new requests too
            (self.path / DRAIN_FILE).touch()
        self._live_before = self._written(LIVE_FILE)

    def live(self) -> int | None:
        """Live streams as the model counts them; None when it does not say."""
        try:
            return int((self.path / LIVE_FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # caught in the middle of a write
            return 1

    def drained(self) -> bool:
        """Whether no stream is live and none can begin.

        A zero from before the drain may be old: on a full disk the model cannot write what began since. Stamps of
        the file are only compared with each other, however coarse they are and whatever clock they come from.
        """
        written = self._written(LIVE_FILE)  # before the count is read, which is then at least as new
        live = self.live()
        return live is None or (live == 0 and written != self._live_before)

    def _written(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_mtime_ns
        except FileNotFoundError:
            return None


class ModelRunFolder:
    """The model's end of the run folder: reads the drain request, writes live count and heartbeat.

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


class Liveness:
    """Whether a thread still runs its loop.

    Args:
        longest_s: between two touches of a living thread.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s, self._last = longest_s, time.monotonic()

    def touch(self) -> None:
        """Called by the thread, once per turn of its loop."""
        self._last = time.monotonic()

    def alive(self) -> bool:
        """Whether the last touch is recent. Any thread may ask."""
        return time.monotonic() - self._last <= self._longest_s


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
