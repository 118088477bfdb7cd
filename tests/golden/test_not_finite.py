"""Numbers of an engine that are not finite end their stream and leave no trace, in all frame loops."""

from dataclasses import replace

import chat_data as data
import pytest
import torch
from loops import KINDS, make

from runtime.engines.options import EngineOptions
from runtime.scheduling.stream import FAULT

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


@pytest.mark.parametrize("part", ["backbone", "speech"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_stream_ends_and_the_others_do_not_notice(kind, part):
    rig = make(kind, OPTIONS)
    loop, pools, poison = rig.loop, rig.pools, rig.wrap(part, Poison)
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
    assert all(torch.isfinite(pool).all() for pool in pools), "no stream inherits a NaN"
    loop.add(golden_stream(3))  # in the slot and the blocks of the lost one
    run(lambda: len(found[3]) >= FRAMES)
    for key in set(found) - set(lost):
        texts = [frame.text_ids[0] for frame in found[key]]
        assert texts == golden["text_ids"][: len(texts)].tolist()
        codes = [code for frame in found[key] for code in frame.codes]
        assert codes == golden["speech_ids"][: len(codes)].tolist()
    for stream in [*loop.scheduler.running]:
        loop.cancel(stream)
    assert loop.scheduler.free_blocks == free


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_leaves_before_its_end_leaves_nothing(kind):
    """Its last chunk would have told; the first one has left numbers in the caches, and may be a known beginning."""
    rig = make(kind, replace(OPTIONS, prefill_chunk=CHUNK))
    loop, pools, poison = rig.loop, rig.pools, rig.wrap("backbone", Poison)
    left = golden_stream(0)
    loop.add(left)
    poison.armed, poison.most, poison.row = True, OPTIONS.prefill_chunk, 0
    while left.position < 2 * CHUNK:
        assert not loop.step()
    assert not poison.armed and any(not torch.isfinite(pool).all() for pool in pools)
    loop.cancel(left)
    assert all(torch.isfinite(pool).all() for pool in pools), "no stream inherits a NaN"
    loop.add(golden_stream(1))
    frames = []
    while len(frames) < FRAMES:
        frames += [item.frame for item in loop.step()]
    assert [frame.text_ids[0] for frame in frames] == data.run(NAME)["text_ids"][: len(frames)].tolist()
