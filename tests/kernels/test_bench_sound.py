"""Streams in company, and sound that another process makes, as the bench measures them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_bench_parts import bench  # noqa: F401

from benchmarks.gpu import profiles, together
from benchmarks.gpu.answers import AnswersBeside
from benchmarks.gpu.measure import Clock
from benchmarks.gpu.sound_child import SoundChild
from benchmarks.gpu.together import company
from builders.released import tiny
from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.token2wav.flow.device_stage import wide


def test_the_first_frame_that_differs_in_company(bench, monkeypatch):  # noqa: F811
    monkeypatch.setattr(together, "FRAMES", 9)
    same = list(company(bench))
    assert [fact.name for fact in same] == ["company_sampled", "company_greedy"]
    assert all(fact.value["first_other_frame"] is None and fact.value["frames"] == 9 for fact in same)
    assert not bench.loop().scheduler.live, "nothing is left for the next part"
    right = together._ids

    def other(bench, others, frames, greedy):
        found = right(bench, 0, frames, greedy)
        return found if not others else [*found[:7], (-1, ()), *found[8:]]

    monkeypatch.setattr(together, "_ids", other)
    assert [fact.value["first_other_frame"] for fact in company(bench)] == [7, 7]


class Slow:
    """Sound that is ready at every third question only."""

    sizes = tiny()

    def __init__(self):
        self.calls, self.flying, self.asked, self.released = [], None, 0, []

    def begin(self, rows):
        assert self.flying is None, "one call at a time"
        assert len({stream for stream, _, _ in rows}) == len(rows), "no stream twice in a call"
        self.flying = rows
        self.calls += rows

    def ready(self):
        self.asked += 1
        return self.asked % 3 == 0

    def found(self):
        rows, self.flying = self.flying, None
        return [0.2 * len(tokens) for _, _, tokens in rows]

    def release(self, streams):
        self.released += streams


def test_frames_do_not_wait_for_sound_elsewhere(bench):  # noqa: F811
    sound = Slow()
    answers = AnswersBeside(bench, sound, (7, 5))
    answers.run([bench.stream(key, bench.sizes.question, 12) for key in range(3)], paced=False)
    assert all(listener.begun and listener.until for listener in answers.listeners.values())
    assert sound.flying is None and not answers.waiting and sound.released == [0, 1, 2]
    starts = [stream for stream, flag, _ in sound.calls if flag & ChunkFlag.START]
    assert sorted(starts) == [0, 1, 2]


def test_a_process_that_ends_is_an_error():
    with pytest.raises(EngineFault, match="its process ended"):
        SoundChild("tiny", "cpu", 2, 1, "no_such_type")


@pytest.mark.parametrize(("dtype", "elements"), [(torch.float16, 8), (torch.float32, 4), (torch.bfloat16, 8)])
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_blocks_are_kept_16_bytes_at_a_time(dtype, elements, frames):
    """Bit for bit, whatever the numbers are; blocks that are not whole ones go as they are."""
    pages = torch.randn(2, 5, 2, frames, dtype=torch.float32).to(dtype)
    pages.view(torch.uint8)[0, 1] = 255  # no number
    places = torch.tensor([4, 0])
    expected, found = pages.clone(), pages.clone()
    own = pages[:, [1, 2]].contiguous()
    expected.index_copy_(1, places, own)
    wide(found).index_copy_(1, places, wide(own))
    assert np.array_equal(found.view(torch.uint8).numpy(), expected.view(torch.uint8).numpy())
    assert wide(found).is_complex() == (2 * frames % elements == 0)


def test_both_ways_to_keep_blocks_are_measured():
    blocks = torch.zeros(1, 2, 9, 2, 2, 2, 50, 16)
    cache = SimpleNamespace(blocks=blocks, spare_block=8)
    sound = SimpleNamespace(flow=SimpleNamespace(_device_cache=cache))
    rows = list(profiles.store_rows(sound, Clock(torch.device("cpu"), 1)))
    assert [row.name.split(", ")[1] for row in rows] == ["16 bytes at a time", "the numbers' size at a time"]
    assert all(row.ms > 0 and row.floor_bytes == 2 * 2 * 8 * 2 * 2 * 2 * 50 * 16 * 4 for row in rows)
