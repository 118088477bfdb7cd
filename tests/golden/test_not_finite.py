"""Numbers of an engine that are not finite end their stream and leave no trace, in all frame loops."""

from dataclasses import replace
from types import SimpleNamespace

import chat_data as data
import pytest
import torch
from tensorrt_double import Double

from runtime.engines.build import build_frame_loop
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.files import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.engines.trtllm.loop import loop_over
from runtime.families.fun_audio_chat.answer import FAULT
from runtime.families.fun_audio_chat.build import build_overlap_loop

NAME, FRAMES, HEALTHY = "s2s_chirp_0p5s", 8, 3
OPTIONS = EngineOptions(3, 256, 768, 512, lead_s=1e9)
CHUNK = 16


def golden_stream(key):
    return data.stream(NAME, data.prefill(NAME)["audio_embeds"], key)


class Poison:
    """Stands before an engine; when armed it turns a row of one call into NaN, caches included.

    ``most``: rows of a call that it takes.
    """

    def __init__(self, run):
        self._run, self.armed, self.most, self.row = run, False, 3, -1

    def __call__(self, x, *rest, **options):
        if self.armed and len(x) <= self.most:
            self.armed = False
            x = x.clone()
            x[self.row] = torch.nan
        return self._run(x, *rest, **options)


def host_loop(part, options=OPTIONS):
    loop = build_frame_loop(data.config(), options)
    engine = getattr(loop._model, f"_{part}")
    engine.run = poison = Poison(engine.run)
    return loop, poison, [engine._pool for engine in loop._model._engines]


def compiled_loop(part, options=OPTIONS):
    doubles = {}

    def open_engine(name, profile):
        stack = {BACKBONE_ENGINE: "backbone", SPEECH_ENGINE: "speech"}[name]
        doubles[stack] = Double(stack, profile=profile)
        return doubles[stack].engine

    loop = loop_over(SimpleNamespace(engine=options), data.config(), torch.device("cpu"), open_engine)
    engine = doubles[part].engine
    engine.run = poison = Poison(engine.run)
    return loop, poison, [double.engine._pool.view(torch.float32) for double in doubles.values()]


def device_loop(part, options=OPTIONS):
    loop = build_overlap_loop(data.config(), options, torch.device("cpu"))
    steps = loop.model.steps
    table = getattr(steps, f"{part}_stack")
    poison = Poison(table.stack)
    poison.memory, poison.shape = table.stack.memory, table.stack.shape
    pools = [steps.backbone_stack.stack.memory, steps.speech_stack.stack.memory]
    setattr(steps, f"{part}_stack", type(table)(poison, table.tables))
    return loop, poison, pools


@pytest.mark.parametrize("part", ["backbone", "speech"])
@pytest.mark.parametrize("make", [host_loop, device_loop, compiled_loop])
def test_one_stream_ends_and_the_others_do_not_notice(make, part):
    loop, poison, pools = make(part)
    free = loop.scheduler.free_blocks
    for key in range(3):
        loop.add(golden_stream(key))
    golden = data.run(NAME)
    found = {key: [] for key in range(4)}

    def run(until):
        while not until():
            for item in loop.step():
                found[item.stream.key].append(item.frame)

    run(lambda: len(found[0]) >= HEALTHY)
    poison.armed = True
    run(lambda: len(found[0]) >= FRAMES)
    assert not poison.armed
    lost = [key for key, frames in found.items() if frames and frames[-1].finish == FAULT]
    assert len(lost) == 1
    assert all(torch.isfinite(pool).all() for pool in pools), "nobody inherits a NaN"
    loop.add(golden_stream(3))  # in the slot and the blocks of the lost one
    run(lambda: len(found[3]) >= FRAMES)
    for key in set(found) - set(lost):
        texts = [frame.text_id for frame in found[key]]
        assert texts == golden["text_ids"][: len(texts)].tolist()
        codes = [code for frame in found[key] for code in frame.codes]
        assert codes == golden["speech_ids"][: len(codes)].tolist()
    for stream in [*loop.scheduler.running]:
        loop.cancel(stream)
    assert loop.scheduler.free_blocks == free


@pytest.mark.parametrize("make", [host_loop, device_loop, compiled_loop])
def test_a_prompt_that_leaves_before_its_end_leaves_nothing(make):
    """Its last chunk would have told; the first one has left numbers in the caches, and may be a known beginning."""
    loop, poison, pools = make("backbone", replace(OPTIONS, prefill_chunk=CHUNK))
    left = golden_stream(0)
    loop.add(left)
    poison.armed, poison.most, poison.row = True, OPTIONS.prefill_chunk, 0
    while left.position < 2 * CHUNK:
        assert not loop.step()
    assert not poison.armed and any(not torch.isfinite(pool).all() for pool in pools)
    loop.cancel(left)
    assert all(torch.isfinite(pool).all() for pool in pools), "nobody inherits a NaN"
    loop.add(golden_stream(1))
    frames = []
    while len(frames) < FRAMES:
        frames += [item.frame for item in loop.step()]
    assert [frame.text_id for frame in frames] == data.run(NAME)["text_ids"][: len(frames)].tolist()
