"""A server with a /dev/shm of its own, so that a test may fill it: a mount namespace, which needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from runtime.supervisor.launch import ServerProcess

MOUNT = 'mount -t tmpfs -o size="$0" tmpfs /dev/shm && exec "$@"'
PAGE = 4096


class SmallMemoryServer(ServerProcess):
    """``ServerProcess`` whose /dev/shm has so many bytes."""

    size = 64 << 20

    def _command(self):
        return ["unshare", "--mount", "sh", "-c", MOUNT, str(self.size), *super()._command()]

    @property
    def memory(self) -> Path:
        """Its /dev/shm, seen from here."""
        return Path("/proc", str(self.pid), "root", "dev", "shm")

    def free_bytes(self) -> int:
        found = os.statvfs(self.memory)
        return found.f_bavail * found.f_frsize

    @contextlib.contextmanager
    def filled(self, leave=0):
        """All of it but ``leave`` bytes is taken as long as the block lasts."""
        filler = self.memory / "filler"
        taken = max(0, self.free_bytes() - leave)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)
        try:
            yield taken
        finally:
            filler.unlink()


def need_namespaces():
    made = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if made.returncode:
        pytest.skip("a mount namespace needs root: " + made.stderr.decode().strip())
