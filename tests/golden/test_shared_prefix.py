"""Streams that begin behind another's system message give the authors' ids, on every engine."""

import chat_data as data
import pytest
import torch
from loops import KINDS, make
from test_decode import check, decode

from runtime.engines.options import EngineOptions

pytestmark = pytest.mark.golden
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


@pytest.mark.parametrize("kind", KINDS)
def test_golden_ids_and_a_prefix_that_no_stream_writes_to(kind):
    rig = make(kind, OPTIONS)
    loop, pools = rig.loop, rig.pools
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
