"""Streams that begin behind another's system message give the authors' ids, on every engine."""

from types import SimpleNamespace

import chat_data as data
import pytest
import torch
from tensorrt_double import Double
from test_decode import check, decode

from runtime.engines.build import build_frame_loop
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.files import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.engines.trtllm.loop import loop_over
from runtime.families.fun_audio_chat.build import build_overlap_loop

pytestmark = pytest.mark.golden
CPU = torch.device("cpu")
OPTIONS = EngineOptions(max_streams=4, max_positions=512, kv_positions=2048, tokens_per_block=8, lead_s=1e9)
# Two system messages, both modes; each name comes again when its message is known.
NAMES = [
    "s2s_noise_2p3s",
    "s2t_noise_2p3s",
    "s2s_tones_7s",
    "s2t_chirp_0p5s",
    "s2s_noise_2p3s",
    "s2s_sample_textgreedy",
]
NAMES = [name for name in NAMES if not data.cases()[name]["do_sample"]]


def torch_loop():
    loop = build_frame_loop(data.config(), OPTIONS)
    return loop, (loop._model._backbone._pool, loop._model._speech._pool)


def device_loop():
    loop = build_overlap_loop(data.config(), OPTIONS, CPU)
    return loop, (loop.model.steps.backbone_stack.stack.memory, loop.model.steps.speech_stack.stack.memory)


def tensorrt_loop():
    doubles = {}

    def open_engine(name, profile):
        stack = {BACKBONE_ENGINE: "backbone", SPEECH_ENGINE: "speech"}[name]
        doubles[stack] = Double(stack, profile=profile)
        return doubles[stack].engine

    loop = loop_over(SimpleNamespace(engine=OPTIONS), data.config(), CPU, open_engine)
    pools = (doubles[stack].engine._pool.view(doubles[stack].engine.shape.num_blocks, -1) for stack in doubles)
    return loop, tuple(pools)


@pytest.mark.parametrize("make", [torch_loop, device_loop, tensorrt_loop])
def test_golden_ids_and_a_prefix_that_nobody_writes_to(make):
    loop, pools = make()
    free = loop.scheduler.free_blocks
    for name, (texts, codes) in zip(NAMES[:2], decode(loop, NAMES[:2]), strict=True):
        check(name, texts, codes)
    prefixes = list(loop.scheduler._memory._prefixes.values())
    assert len(prefixes) == 2 and loop.scheduler.free_blocks == free
    # The next streams' first step copies the blocks that are filled in part; what matters are full ones.
    full = [
        [list(blocks[: prefix.positions * factor // 8]) for blocks, factor in zip(prefix.blocks, (1, 5), strict=False)]
        for prefix in prefixes
    ]
    before = [[pools[i][b].clone() for i, b in enumerate(blocks)] for blocks in full]
    assert all(blocks for prefix in full for blocks in prefix), "both caches share at least one block"
    for name, (texts, codes) in zip(NAMES, decode(loop, NAMES), strict=True):
        check(name, texts, codes)
    assert loop.scheduler.prefix_hits == len(NAMES)
    for blocks, contents in zip(full, before, strict=True):
        for i, b in enumerate(blocks):
            assert torch.equal(pools[i][b], contents[i])
    assert loop.scheduler.free_blocks == free
