"""Frames that are decided on the device, one ahead of the host: every id of the authors' runs, alone and batched."""

import chat_data as data
import numpy as np
import pytest
import torch
from test_decode import check, decode

from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import build_overlap_loop

pytestmark = pytest.mark.golden
OPTIONS = EngineOptions(max_streams=8, max_positions=512, kv_positions=4096, lead_s=1e9)
CPU = torch.device("cpu")
GREEDY = [name for name, case in data.cases().items() if not case["do_sample"]]


@pytest.mark.parametrize("chunk", [16, 256])
@pytest.mark.parametrize("name", ["s2s_noise_2p3s", "s2t_mix_31s", "s2s_rep", "s2s_text_eos", "s2s_noforce"])
def test_greedy_run(name, chunk):
    loop = build_overlap_loop(data.config(), EngineOptions(2, 512, 1024, chunk), CPU)
    [(texts, codes)] = decode(loop, [name])
    check(name, texts, codes)


def test_all_greedy_runs_batched():
    loop = build_overlap_loop(data.config(), OPTIONS, CPU)
    blocks = loop.scheduler.free_blocks
    for name, (texts, codes) in zip(GREEDY, decode(loop, GREEDY), strict=True):
        check(name, texts, codes)
    assert loop.scheduler.free_blocks == blocks


@pytest.mark.parametrize("name", [name for name, case in data.cases().items() if case["do_sample"]])
def test_sampled_run_with_the_recorded_random_numbers(name):
    text_greedy = data.cases()[name]["text_greedy"]
    numbers = data.run(name)["uniforms"].reshape(-1, 5 if text_greedy else 6)
    state = None

    def draws(slots, number):
        row = numbers[int(state.forwards[slots[0]])]
        return torch.tensor([row[number]], dtype=torch.float64)

    loop = build_overlap_loop(data.config(), OPTIONS, CPU, draws=draws)
    state = loop.model.steps.state
    # One frame more than the authors ran is queued before the end is known.
    numbers = np.concatenate([numbers, np.full((2, numbers.shape[1]), 0.5)])
    [(texts, codes)] = decode(loop, [name])
    check(name, texts, codes)
