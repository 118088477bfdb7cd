"""On ``cpu`` a stream's numbers do not depend on its company, to the last bit: so no near tie is ever decided by it."""

import chat_data as data
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from loops import make
from test_decode import audio_embeds

from kernels.linear import product
from kernels.ops import twin_ops
from runtime.engines.options import EngineOptions

pytestmark = pytest.mark.golden
NAMES = ["s2s_noise_2p3s", "s2s_tones_7s", "s2t_mix_31s", "s2s_chirp_0p5s", "s2s_sample_both", "s2s_multiturn"]
FRAMES = 40


class RecordingOps:
    """The twins; keeps every score that ids are chosen from, by stream and in order."""

    def __init__(self):
        self._ops, self.scores, self.scheduler = twin_ops(), {}, None

    def __getattr__(self, name):
        return getattr(self._ops, name)

    def choose(self, scores, slots, *rest):
        keys = {stream.slot: stream.key for stream in self.scheduler.running}
        for slot, row in zip(slots.tolist(), scores, strict=True):
            self.scores.setdefault(keys[slot], []).append(row.clone())
        return self._ops.choose(scores, slots, *rest)


class Recorder:
    """A frame loop that keeps every score of every stream, in order."""

    def __init__(self, **options):
        options = {"max_streams": 8, "max_positions": 512, "kv_positions": 4096, "lead_s": 1e9} | options
        ops = RecordingOps()
        self.loop, self.scores = make("torch", EngineOptions(**options), ops=ops).loop, ops.scores
        ops.scheduler = self.loop.scheduler

    def run(self, arrivals):
        """``arrivals``: names by the number of the step at which they come; keys count from 0 in that order."""
        waiting = [(step, data.stream(name, audio_embeds(name), key)) for key, (step, name) in enumerate(arrivals)]
        step = 0
        while waiting or self.loop.scheduler.live or self.loop.scheduler.waiting:
            while waiting and waiting[0][0] <= step:
                self.loop.add(waiting.pop(0)[1])
            self.loop.step()
            for stream in [*self.loop.scheduler.running]:
                if stream.answer.forwards >= FRAMES:
                    self.loop.cancel(stream)
            step += 1
        return self.scores


@pytest.fixture(scope="module")
def alone():
    return {name: Recorder().run([(0, name)])[0] for name in NAMES}


arrivals = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(NAMES)), min_size=2, max_size=10).map(sorted)


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(arrivals, st.sampled_from([7, 33, 512]), st.sampled_from([8, 32]), st.sampled_from([0, 8]))
def test_every_score_is_the_same_in_any_company(alone, arrivals, chunk, block, prefixes):
    """Any neighbours, any chunks of the prompt, with and without shared system messages."""
    together = Recorder(prefill_chunk=chunk, tokens_per_block=block, max_prefixes=prefixes).run(arrivals)
    for key, (_, name) in enumerate(arrivals):
        assert len(together[key]) == len(alone[name])
        for number, (found, wanted) in enumerate(zip(together[key], alone[name], strict=True)):
            assert torch.equal(found, wanted), (name, number, float((found - wanted).abs().max()))


@pytest.mark.parametrize(("width", "out"), [(48, 96), (64, 300), (256, 1024), (4096, 512)])
def test_products_of_any_number_of_rows(width, out):
    generator = torch.Generator().manual_seed(1)
    weight, rows = torch.randn(out, width, generator=generator), torch.randn(70, width, generator=generator)
    whole = product(rows, weight)
    for count in (1, 2, 3, 4, 5, 8, 13, 31, 64):
        begin = int(np.random.default_rng(count).integers(0, 70 - count))
        assert torch.equal(product(rows[begin : begin + count], weight), whole[begin : begin + count])
