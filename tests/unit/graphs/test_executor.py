"""Recordings on a GPU without one: a double of torch's pools of graphs, and what keeps recordings alive."""

import gc
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from runtime.families.fun_audio_chat.recorded import RecordedFrames
from runtime.graphs import executor
from runtime.graphs.executor import WARM_UPS, CudaExecutor, EagerExecutor, executor_for


class Pools:
    """``torch.cuda`` as far as recording goes: a pool whose graphs are all gone takes no other one."""

    def __init__(self, patch):
        self.made, self.graphs, self.streams, self.current = set(), weakref.WeakKeyDictionary(), [], []
        pools = self

        class Graph:
            def replay(self):
                """Nothing to run again."""

        @contextmanager
        def graph(made, pool, stream, capture_error_mode):
            alive = [found for found in pools.graphs.values() if found is pool]
            assert alive or pool not in pools.made, "use_count > 0"
            pools.made.add(pool)
            pools.graphs[made] = pool
            pools.streams.append(stream)
            yield

        @contextmanager
        def current(stream):
            yield

        def stream(device, priority=0):
            return SimpleNamespace(priority=priority, wait_stream=lambda other: None)

        self.caller = caller = stream("cpu")

        for name, value in {
            "CUDAGraph": Graph, "graph": graph, "stream": current, "Stream": stream, "graph_pool_handle": object,
            "synchronize": lambda device: None, "current_stream": lambda device: caller,
            "set_stream": self.current.append,
        }.items():  # fmt: skip
            patch.setattr(torch.cuda, name, value)


def test_a_recording_that_is_not_wanted_any_more_stays(monkeypatch):
    """Its end would free what others were captured with, and the last one's their pool."""
    pools = Pools(monkeypatch)
    made = CudaExecutor("cpu")
    for count in (1, 2):
        work = made.record(lambda: None, lambda: None)
        work()
        del work
        gc.collect()
        assert len(pools.graphs) == count
    del made
    gc.collect()
    assert not pools.graphs, "they end with their executor"


def test_two_executors_record_with_pools_streams_and_priorities_of_their_own(monkeypatch):
    pools = Pools(monkeypatch)
    executors = CudaExecutor("cpu"), CudaExecutor("cpu", priority=-1)
    for made in executors:
        made.record(lambda: None, lambda: None)
    assert len(pools.made) == 2
    assert [stream.priority for stream in pools.streams] == [0, -1]


def test_a_capture_that_fails_leaves_the_callers_stream(monkeypatch):
    pools, times = Pools(monkeypatch), iter(range(9))

    def work():
        assert next(times) < WARM_UPS, "not captured"

    with pytest.raises(AssertionError, match="not captured"):
        CudaExecutor("cpu").record(work, lambda: None)
    assert pools.current == [pools.caller]


def test_the_executor_of_a_device(monkeypatch):
    monkeypatch.setattr(executor, "CudaExecutor", lambda *args: args)
    gpu = torch.device("cuda", 0)
    assert executor_for(gpu, priority=-1) == (gpu, -1) and executor_for(gpu) == (gpu, 0)
    assert isinstance(executor_for(torch.device("cpu"), priority=-1), EagerExecutor)


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


def test_recorded_frames_go_without_the_garbage_collector(no_collector):
    sizes = SimpleNamespace(slots=2, speech_ids=SimpleNamespace(group_size=5))
    decisions = SimpleNamespace(accept=lambda slots, found: found.fill_(1))
    state = SimpleNamespace(sizes=sizes, padding=2)
    steps = SimpleNamespace(state=state, decisions=decisions, backbone=lambda slots: None, speech=lambda slots: None)
    frames = RecordedFrames(EagerExecutor(), steps)
    assert frames.run([1, 0], [0]).tolist() == [[1] * 6] * 2
    watched = [weakref.ref(made) for made in (frames, frames._backbone, frames._speech, frames._accept)]
    del frames
    assert [found() for found in watched] == [None] * 4
