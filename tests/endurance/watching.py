"""What a server holds: memory, files, threads of each of its processes, shared memory, the gauges. Linux only."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import scrape
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children
from runtime.supervisor.shared_memory import PREFIX_FILE, regions
from runtime.supervisor.watch import is_stub, model_of
from runtime.tritonserver.metrics import PREFIX

MB = 2**20
SUPERVISOR, TRITON = "supervisor", "tritonserver"
IDLE_S = 30.0  # after the last client left, everything must be free within this
LOOKS, LOOK_EVERY_S = 2, 0.2
KV_USED = ("kv_used_backbone", "kv_used_speech")
# Zero on an idle server; one that this server does not have counts as zero.
IDLE_ZERO = (
    "live_requests",
    "live_streams",
    "queue_length",
    "flow_streams",
    "flow_state_bytes",
    "vocoder_streams",
    "vocoder_state_bytes",
    *KV_USED,
)


@dataclass(frozen=True, slots=True)
class Use:
    """What one process holds. ``anon_mb``: the part of ``rss_mb`` that is neither file nor shared memory."""

    pid: int
    rss_mb: float
    anon_mb: float
    fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, ``at_s`` seconds after the first."""

    at_s: float
    processes: Mapping[str, Use]
    shm_mb: float
    gauges: Mapping[str, float]


def processes_of(supervisor: int) -> dict[str, int]:
    """Pids by name: the supervisor, tritonserver, and each stub by its model."""
    found = {SUPERVISOR: supervisor}
    for server in children(supervisor):
        found[TRITON] = server.pid
        found |= {model_of(child): child.pid for child in children(server.pid) if is_stub(child)}
    return found


def use_of(pid: int) -> Use | None:
    """What a process holds now; None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        fds = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    rss_kb, anon_kb = (int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "RssAnon"))
    return Use(pid, rss_kb / 1024, anon_kb / 1024, fds, int(fields["Threads"]))


def shared_mb(out: Path) -> float:
    """Shared memory below the prefix of the server that serves this folder."""
    try:
        prefix = (out / "run" / PREFIX_FILE).read_text("utf-8")
    except FileNotFoundError:
        return 0.0
    total = 0
    for region in regions(prefix):
        try:
            total += region.stat().st_size
        except FileNotFoundError:  # removed meanwhile
            continue
    return total / MB


def gauges_of(server: ServerProcess) -> dict[str, float]:
    """Our own metrics by their short names."""
    values = scrape(server.addresses.metrics_url)
    return {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}


def held(values: Mapping[str, float]) -> dict[str, float]:
    """What requests hold by these gauges. A server that shows none is not known to be empty."""
    return {name: values[name] for name in IDLE_ZERO if values.get(name)} if values else {"metrics": 1.0}


def still_held(server: ServerProcess, timeout_s: float = IDLE_S) -> dict[str, float]:
    """Waits until the server holds nothing; returns what it holds after so long all the same.

    Gauges are sent one after another, some 50 ms apart, so only what is free in two looks is free.
    """
    deadline = time.monotonic() + timeout_s
    free = 0
    while free < LOOKS:
        found = held(gauges_of(server))
        free = 0 if found else free + 1
        if found and time.monotonic() > deadline:
            return found
        time.sleep(LOOK_EVERY_S)
    return {}


class Watcher:
    """Looks at a server in a thread of its own, every ``every_s`` seconds, between ``start`` and ``stop``."""

    def __init__(self, server: ServerProcess, every_s: float = 1.0) -> None:
        self._server, self._every_s = server, every_s
        self._began = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self.samples: list[Sample] = []
        self.restarts = 0  # times that tritonserver was another process than before

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the look in progress."""
        self._end.set()
        self._thread.join()

    def look(self) -> Sample:
        """One look now."""
        pids = processes_of(self._server.pid)
        uses = {name: use for name, pid in pids.items() if (use := use_of(pid)) is not None}
        at_s = time.monotonic() - self._began
        return Sample(at_s, uses, shared_mb(self._server.out), gauges_of(self._server))

    def _watch(self) -> None:
        while True:
            sample = self.look()
            if self.samples and self._pid(sample) not in (None, self._pid(self.samples[-1])):
                self.restarts += 1
            self.samples.append(sample)
            if self._end.wait(self._every_s):
                return

    def _pid(self, sample: Sample) -> int | None:
        use = sample.processes.get(TRITON)
        return None if use is None else use.pid
