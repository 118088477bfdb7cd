"""Our kernels between compiled engines (over their double): golden ids, and how often the host asks the device."""

from dataclasses import replace

import chat_data as data
import pytest
import torch
from device_double import LazyDevice
from loops import make
from test_kernel_frames import NEVER, golden_stream

from kernels.ops import kernel_ops
from runtime.engines.options import EngineOptions
from runtime.graphs.executor import EagerExecutor

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the double computes on the CPU")
FRAMES = 3
ASKING = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")
BRINGING = ("tensor", "as_tensor", "from_numpy")


class Count:
    """Calls that would make the host wait for a GPU, or copy unpinned memory to it, and by whom."""

    def __init__(self, patch):
        self.calls, self.waits, self._quiet = [], 0, 0
        for owner, names in ((torch.Tensor, ASKING), (torch, BRINGING)):
            for name in names:
                patch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name, function):
        def call(*args, **kwargs):
            if not self._quiet:
                self.calls.append(name)
            return function(*args, **kwargs)

        return call

    def quiet(self, function):
        """A part that stands for the device."""

        def call(*args, **kwargs):
            self._quiet += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._quiet -= 1

        return call


class Ops:
    """Kernels, which are launched and not waited for."""

    def __init__(self, count, ops):
        self._count, self._ops = count, ops

    def __getattr__(self, name):
        return self._count.quiet(getattr(self._ops, name))


class Counted(EagerExecutor):
    """Copies are pinned and queued on a GPU; only a ticket is waited for."""

    def __init__(self, count):
        super().__init__()
        self._count = count
        self.upload = count.quiet(super().upload)

    def fetch(self, source):
        ticket, count = self._count.quiet(super().fetch)(source), self._count

        class Waited:
            def wait(self):
                count.waits += 1
                return ticket.wait()

        return Waited()


def frames_of(loop, wanted):
    found = []
    while len(found) < wanted:
        found += [item.frame for item in loop.step()]
    return found


def test_golden_ids_through_the_kernels():
    """Every id is chosen and fed back by kernels in Triton's interpreter; the prompt is longer than a chunk."""
    options = EngineOptions(1, 256, 256, 16, tokens_per_block=16, lead_s=NEVER)
    loop = make("compiled", options, ops=kernel_ops()).loop
    loop.model.prepare()
    loop.add(golden_stream("s2s_chirp_0p5s"))
    frames = frames_of(loop, FRAMES)
    golden = data.run("s2s_chirp_0p5s")
    assert [frame.text_ids[0] for frame in frames] == golden["text_ids"][:FRAMES].tolist()
    codes = [code for frame in frames for code in frame.codes]
    assert len(codes) == 5 * (FRAMES - 1) and codes == golden["speech_ids"][: len(codes)].tolist()


@pytest.mark.parametrize("sampled", [False, True])
def test_a_frame_asks_the_device_once(monkeypatch, sampled):
    """Two streams generate, greedily or sampling: nothing but the wait for the ids of the frame before."""
    count = Count(monkeypatch)
    monkeypatch.setattr("runtime.families.fun_audio_chat.build.executor_for", lambda device: Counted(count))
    monkeypatch.setattr(LazyDevice, "run_until", count.quiet(LazyDevice.run_until))
    options = EngineOptions(2, 512, 1024, 512, lead_s=NEVER)
    loop = make("compiled", options, ops=Ops(count, count.quiet(kernel_ops)())).loop
    for key in range(2):
        stream = golden_stream("s2s_chirp_0p5s", key)
        sampling = replace(stream.params.sampling, greedy=not sampled, text_greedy=not sampled)
        stream.answer.params = replace(stream.params, sampling=sampling)
        loop.add(stream)
    for _ in range(2):
        loop.step()
    count.calls.clear()
    before = count.waits
    for _ in range(FRAMES):
        assert len(loop.step()) == 2
    assert count.calls == [] and count.waits - before == FRAMES


def test_the_count_notices_a_question(monkeypatch):
    count = Count(monkeypatch)
    float(torch.ones(1)[0])
    assert count.calls
