"""A device that is behind its host: what it reads late is still what was meant, and no memory is pinned in service."""

import chat_data as data
import torch
from test_kernel_frames import CPU, NEVER, Recorder, golden_stream

from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import recorded_loop
from runtime.graphs.executor import TURNS, CudaExecutor, EagerExecutor


class Late:
    """A stand-in for a GPU that is behind: queued in order, and nothing runs before a result is waited for.

    What is brought over is wiped in the host's own array at once: a device reads it much later.
    """

    def __init__(self):
        self.device, self.queue, self.most = CPU, [], 0

    @torch.inference_mode()
    def run(self):
        self.most = max(self.most, len(self.queue))
        while self.queue:
            self.queue.pop(0)()

    def upload(self, target, values):
        kept = torch.from_numpy(values.copy())
        self.queue.append(lambda: target.copy_(kept))
        values.fill(-1)

    def record(self, work, idle):
        idle()
        self.run()
        return lambda: self.queue.append(work)

    def fetch(self, source):
        late, found = self, []
        self.queue.append(lambda: found.append(source.numpy().copy()))

        class Kept:
            def wait(self):
                late.run()
                return found[0]

        return Kept()


def come_and_go(executor, monkeypatch):
    """Ids by stream of four that join one after another, some of them cancelled with a frame in flight."""
    monkeypatch.setattr("runtime.families.fun_audio_chat.build.executor_for", lambda device: executor)
    loop = recorded_loop(data.config(), EngineOptions(4, 256, 1024, 64, lead_s=NEVER), CPU)
    queue = loop.model.queue

    def queued(plan):
        if plan.contexts or plan.copies:
            getattr(executor, "run", lambda: None)()  # prompts are queued by torch itself, behind all that came before
        return queue(plan)

    monkeypatch.setattr(loop.model, "queue", queued)
    names = ["s2s_chirp_0p5s", "s2s_noise_2p3s", "s2s_tones_7s", "s2s_chirp_0p5s"]
    streams, ids = [golden_stream(name, key) for key, name in enumerate(names)], {}
    for step in range(24):
        if step % 3 == 0 and step // 3 < len(streams):
            loop.add(streams[step // 3])
        if step % 7 == 6:
            running = [stream for stream in loop.scheduler.running if stream.key % 3 == 1]
            for stream in running[:1]:
                loop.cancel(stream)
        for item in loop.step():
            ids.setdefault(item.stream.key, []).append((item.frame.text_ids[0], item.frame.codes))
    return ids


def test_a_device_that_is_behind_finds_what_it_should(monkeypatch):
    """Frames run when the ids before them are read; arrays of the host have changed by then, slots have new owners."""
    late = Late()
    expected = come_and_go(EagerExecutor(), monkeypatch)
    assert come_and_go(late, monkeypatch) == expected and len(expected) == 4
    assert late.most > 4, "several pieces of work were queued together"


class Pinned(CudaExecutor):
    """The real executor's memory on the host, without a GPU: counts what it would pin."""

    def __init__(self, patch):
        self.device, self._hosts, self.pinned = CPU, {}, []
        right = torch.empty

        def empty(*sizes, pin_memory=False, **options):
            self.pinned += [sizes] * pin_memory
            return right(*sizes, **options)

        patch.setattr(torch, "empty", empty)

    def upload(self, target, values):
        target.copy_(torch.from_numpy(values))

    def record(self, work, idle):
        idle()
        return work

    def fetch(self, source):
        host = self._host(source)
        host.copy_(source)
        return Recorder().fetch(host)


def test_no_memory_is_pinned_while_streams_join(monkeypatch):
    """Pinning takes the host long, and some calls of it wait for the device."""
    pinned = Pinned(monkeypatch)
    loop = recorded_loop(data.config(), EngineOptions(4, 256, 1024, 64, lead_s=NEVER), CPU, executor=pinned)
    loop.model.prepare()
    before = list(pinned.pinned)
    assert len(before) == TURNS + 1
    for key in range(4):
        loop.add(golden_stream("s2s_chirp_0p5s", key))
        for _ in range(3):
            loop.step()
    assert len(loop.scheduler.running) == 4 and pinned.pinned == before


def test_results_share_pinned_memory(monkeypatch):
    """Fewer rows lie in the memory of more; what was fetched holds until two more are."""
    pinned = Pinned(monkeypatch)
    first, second, third = (pinned._host(torch.zeros(rows, 6)) for rows in (4, 2, 3))
    assert [len(host) for host in (first, second, third)] == [4, 2, 3] and len(pinned.pinned) == TURNS + 1
    assert len({host.data_ptr() for host in (first, second, third)}) == TURNS + 1
    assert pinned._host(torch.zeros(1, 6)).data_ptr() == first.data_ptr()
    larger = pinned._host(torch.zeros(5, 6))
    assert len(larger) == 5 and len(pinned.pinned) == 2 * (TURNS + 1), "more rows than ever: pinned anew"
    assert pinned._host(torch.zeros(())).shape == () and pinned._host(torch.zeros(2, 3)).shape == (2, 3)
