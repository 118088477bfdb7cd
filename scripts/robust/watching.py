"""What a server holds: memory, files, threads of each of its processes, shared memory, the gauges. Linux only."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.perf.machine import scrape
from runtime.server.launch import ServerProcess
from runtime.server.process import children
from runtime.server.shared_memory import PREFIX_FILE, regions
from runtime.server.watch import is_stub, model_of
from runtime.serving.gauges import PREFIX

MB = 2**20
SUPERVISOR, TRITON = "supervisor", "tritonserver"
KV_USED = ("kv_used_backbone", "kv_used_speech")
# Zero on a server on which nobody asks anything; one that this server does not have counts as zero.
IDLE_ZERO = (
    "live_requests",
    "live_streams",
    "queue_length",
    "flow_streams",
    "flow_state_bytes",
    "vocoder_streams",
    "vocoder_state_bytes",
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


def wait_idle(server: ServerProcess, timeout_s: float) -> dict[str, float]:
    """Waits until nothing is live; returns the gauges as they are then, idle or not."""
    deadline = time.monotonic() + timeout_s
    while True:
        values = gauges_of(server)
        idle = bool(values) and not any(values.get(name) for name in IDLE_ZERO)
        if idle or time.monotonic() > deadline:
            return values
        time.sleep(0.1)


def held(values: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """What an idle server still holds: gauges above zero, and KV blocks above those of the idle baseline."""
    if not values:
        return {"metrics": 1.0}
    found = {name: values[name] for name in IDLE_ZERO if values.get(name)}
    blocks = {name: values.get(name, 0.0) - baseline.get(name, 0.0) for name in KV_USED}
    return found | {name: value for name, value in blocks.items() if value > 0}


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
