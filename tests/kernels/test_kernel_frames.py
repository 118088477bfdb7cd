"""Whole frames of the golden checkpoint through the kernels, and recordings that only see their buffers."""

import chat_data as data
import numpy as np
import pytest
import torch

from kernels.ops import kernel_ops, twin_ops
from runtime.engines.options import EngineOptions
from runtime.errors import InvalidRequest
from runtime.families.fun_audio_chat.build import recorded_loop
from runtime.frames.batches import Batch, buckets
from runtime.graphs.executor import EagerExecutor
from runtime.params import SamplingParams
from runtime.scheduling.stream import Prompt, Stream

CPU = torch.device("cpu")
FRAMES = 3
NEVER = 1e9  # no stream pauses for its listener, however fast this machine is


def golden_stream(name, key=0):
    """A case of the golden set with the authors' own audio rows."""
    run, embeds = data.run(name), data.prefill(name)["audio_embeds"]
    ids = run["prompt_ids"]
    prompt = Prompt(ids, embeds, np.flatnonzero(ids == data.config().text_ids.audio))
    return Stream(key, prompt, data.stream(name, embeds).answer)


def test_golden_ids_through_the_kernels(device):
    """Forced start, groups and their feedback by kernels, in the interpreter or on the GPU.

    The prompt but for its last row goes through the twins: hundreds of rows would take the interpreter a minute.
    """
    stream = golden_stream("s2s_chirp_0p5s")
    options = EngineOptions(1, 256, 256, len(stream.prompt) - 1, tokens_per_block=16)
    loop = recorded_loop(data.config(), options, device, ops=twin_ops())
    loop.add(stream)
    assert loop.step() == []
    steps = loop.model.steps
    steps.decisions.ops = steps.backbone_stack.stack._ops = steps.speech_stack.stack._ops = kernel_ops()
    frames = []
    while len(frames) < FRAMES:
        frames += [item.frame for item in loop.step()]
    golden = data.run("s2s_chirp_0p5s")
    assert [frame.text_ids[0] for frame in frames] == golden["text_ids"][:FRAMES].tolist()
    codes = [code for frame in frames for code in frame.codes]
    assert len(codes) == 5 * (FRAMES - 1) and codes == golden["speech_ids"][: len(codes)].tolist()


def test_two_streams_through_the_kernels(device):
    """What is a stream's own comes from its own row, frame after frame."""
    names = ("s2s_chirp_0p5s", "s2s_noise_2p3s")
    options = EngineOptions(2, 256, 512, 256, tokens_per_block=16, lead_s=NEVER)
    # Never recorded: a recording would keep the twins, and they ask the host.
    loop = recorded_loop(data.config(), options, device, ops=twin_ops(), executor=EagerExecutor(device))
    found = {0: [], 1: []}

    def step():
        for item in loop.step():
            found[item.stream.key].append(item.frame)

    for key, name in enumerate(names):
        loop.add(golden_stream(name, key))
    while not all(found.values()):
        step()
    steps = loop.model.steps
    steps.decisions.ops = steps.backbone_stack.stack._ops = steps.speech_stack.stack._ops = kernel_ops()
    while min(map(len, found.values())) < FRAMES + 1:
        step()
    for key, name in enumerate(names):
        golden, frames = data.run(name), found[key]
        assert [frame.text_ids[0] for frame in frames] == golden["text_ids"][: len(frames)].tolist()
        codes = [code for frame in frames for code in frame.codes]
        assert codes and codes == golden["speech_ids"][: len(codes)].tolist()


class Recorder:
    """A stand-in for CUDA graphs: what is recorded may not change address, and is run from its buffers alone."""

    def __init__(self):
        self.device, self.recorded = CPU, 0

    def upload(self, target, values):
        target.copy_(torch.from_numpy(values))

    def record(self, work, idle):
        idle()
        work()  # a warm-up
        self.recorded += 1
        return work

    def fetch(self, source):
        class Kept:
            array = source.numpy().copy()

            def wait(self):
                return self.array

        return Kept()


def addresses(state):
    tensors = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
    return [t.data_ptr() for t in (*tensors, state.speech.seen, state.text.seen, state.text.seeds)]


def test_replay_with_changed_inputs_equals_eager(monkeypatch):
    """Streams come and go, buckets change, warm-ups happen in mid-stream: ids and buffers' addresses do not."""
    names = ["s2s_chirp_0p5s", "s2s_noise_2p3s", "s2s_tones_7s"]
    results, recorder = [], Recorder()
    for recording in (False, True):
        if recording:
            monkeypatch.setattr("runtime.families.fun_audio_chat.build.executor_for", lambda device: recorder)
        loop = recorded_loop(data.config(), EngineOptions(3, 256, 768, 64, lead_s=NEVER), CPU)
        state = loop.model.steps.state
        before, ids, waiting = addresses(state), {}, [golden_stream(n, i) for i, n in enumerate(names)]
        for step in range(40):
            if waiting and step % 5 == 0:
                loop.add(waiting.pop(0))
            for item in loop.step():
                ids.setdefault(item.stream.key, []).append((item.frame.text_ids[0], item.frame.codes))
        assert addresses(state) == before
        results.append(ids)
    assert results[0] == results[1] and len(results[0]) == 3
    assert recorder.recorded >= 6, "two works and the rules, for one and for more streams"


def test_padding_rows_leave_no_trace():
    """A bucket that is not full: the streams' caches and state are those of a full one."""
    loop = recorded_loop(data.config(), EngineOptions(6, 256, 1536, 512), CPU)
    for key in range(5):
        loop.add(golden_stream("s2s_chirp_0p5s", key))
    found = [item.frame for _ in range(4) for item in loop.step()]
    assert len(found) == 15 and len({(f.text_ids, f.codes) for f in found}) == 3
    state = loop.model.steps.state
    assert int(state.position[state.padding]) == 0 and not bool(state.speaks[state.padding])


def test_cancel_with_a_frame_in_flight():
    loop = recorded_loop(data.config(), EngineOptions(2, 256, 512, 64), CPU)
    free, first, second = (
        loop.scheduler.free_blocks,
        golden_stream("s2s_chirp_0p5s", 0),
        golden_stream("s2s_chirp_0p5s", 1),
    )
    loop.add(first)
    loop.step()
    loop.step()
    loop.cancel(first)
    loop.add(second)  # takes the slot and the blocks while the other's frame is on its way
    items = [item for _ in range(6) for item in loop.step()]
    assert {item.stream for item in items} == {second}
    texts = [item.frame.text_ids[0] for item in items]
    assert texts == data.run("s2s_chirp_0p5s")["text_ids"][: len(texts)].tolist()
    loop.cancel(second)
    assert loop.step() == [] and loop.step() == [] and loop.scheduler.free_blocks == free


def test_buckets():
    assert buckets(1) == (1,) and buckets(3) == (1, 2, 3) and buckets(20) == (1, 2, 4, 8, 16, 20)
    batch = Batch(Recorder(), lambda slots: None, 20, 20)
    assert [batch.bucket(n) for n in (1, 3, 5, 9, 17, 20)] == [1, 4, 8, 16, 20, 20]
    with pytest.raises(ValueError, match="not positive"):
        buckets(0)


def test_too_many_banned_pairs_are_refused():
    with pytest.raises(InvalidRequest, match="banned_pairs: is 5, outside"):
        SamplingParams(banned_pairs=tuple((i, i) for i in range(5)))
