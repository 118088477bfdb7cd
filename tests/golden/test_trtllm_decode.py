"""Whole answers of the frame loop on compiled engines (over their double): every id is the authors'."""

from types import SimpleNamespace

import chat_data as data
import numpy as np
import pytest
import torch
from tensorrt_double import Double
from test_decode import check, decode

from runtime.engines.build import build_frame_loop
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.files import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.engines.trtllm.loop import loop_over

pytestmark = pytest.mark.golden
NAMES = ("s2s_tones_7s", "s2t_noise_2p3s", "s2s_noise_2p3s", "s2s_chirp_0p5s")
SAMPLED = ["s2s_sample_textgreedy", "s2s_sample_both"]
NEVER = 1e9  # nobody stands back, however fast this machine is


def doubled_loop(engine, graphs=0, **options):
    """The loop, and the doubles that its engines are."""
    doubles = {}

    def open_engine(name, profile):
        stack = {BACKBONE_ENGINE: "backbone", SPEECH_ENGINE: "speech"}[name]
        doubles[stack] = Double(stack, graphs=graphs if stack == "speech" else 0, profile=profile)
        return doubles[stack].engine

    loop = loop_over(SimpleNamespace(engine=engine), data.config(), torch.device("cpu"), open_engine, **options)
    return loop, doubles


@pytest.mark.parametrize(("graphs", "chunk"), [(0, 32), (3, 256)])
def test_streams_together(graphs, chunk):
    engine = EngineOptions(max_streams=3, max_positions=512, kv_positions=2048, prefill_chunk=chunk)
    loop, doubles = doubled_loop(engine, graphs)
    loop.prepare()
    blocks = loop.scheduler.free_blocks
    for name, (texts, codes) in zip(NAMES, decode(loop, NAMES), strict=True):
        check(name, texts, codes)
    assert loop.scheduler.free_blocks == blocks
    assert len(doubles["speech"].engine._graphs) == graphs, "one to three streams speak together"
    assert doubles["speech"].device.waits > 0 and doubles["backbone"].device.waits > 0


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_run_with_the_recorded_random_numbers(name):
    numbers = data.run(name)["uniforms"].reshape(-1, 5 if data.cases()[name]["text_greedy"] else 6)
    # One frame more than the authors ran is queued before the end is known.
    numbers = np.concatenate([numbers, np.full((2, numbers.shape[1]), 0.5)])
    state = None

    def draws(slots, number):
        return torch.tensor([numbers[int(state.forwards[slots[0]])][number]], dtype=torch.float64)

    loop, _ = doubled_loop(EngineOptions(2, 512, 1024), draws=draws)
    state = loop.model.state
    [(texts, codes)] = decode(loop, [name])
    check(name, texts, codes)


def test_seeded_runs_equal_the_torch_engines():
    """The same ids as on ``cpu``, whose sampler works on the host: same seeds, penalties, bans and context."""
    options = EngineOptions(3, 512, 2048, 64, lead_s=NEVER)
    names = [*SAMPLED, "s2s_rep"]
    assert decode(doubled_loop(options)[0], names) == decode(build_frame_loop(data.config(), options), names)
