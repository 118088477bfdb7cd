"""Where chunks are cut: counts only, no net."""

from collections import deque

import pytest

from runtime.contracts import ChunkFlag
from runtime.errors import InvalidRequest
from runtime.token2wav.hops import (
    ALIGNED_HOPS,
    DEMO_SERVER_HOPS,
    EARLIEST_HOPS,
    STEADY_HOPS,
    ChunkCutter,
    HopPolicy,
    requested_hops,
    take_joined,
)

POLICIES = [ALIGNED_HOPS, EARLIEST_HOPS, STEADY_HOPS, DEMO_SERVER_HOPS, (1,), (5, 7)]


def cut(tokens, hops, group):
    cutter = ChunkCutter(HopPolicy(hops))
    cuts = [c for i in range(0, len(tokens), group) for c in cutter.push(tokens[i : i + group])]
    return cuts + cutter.finish()


@pytest.mark.parametrize("hops", POLICIES)
@pytest.mark.parametrize("count", [*range(9), 17, 18, 19, 28, 53, 63, 200])
def test_every_token_is_given_once_and_grouping_does_not_matter(hops, count):
    tokens = list(range(count))
    cuts = cut(tokens, hops, 5)
    assert [t for c in cuts for t in c.tokens] == tokens
    assert cuts == cut(tokens, hops, 1) == cut(tokens, hops, 63)
    flags = [c.flag for c in cuts]
    assert [bool(f & ChunkFlag.START) for f in flags] == [True] + [False] * (len(flags) - 1)
    assert [bool(f & ChunkFlag.FINAL) for f in flags] == [False] * (len(flags) - 1) + [True]


def test_a_chunk_is_cut_as_soon_as_its_lookahead_is_there():
    cutter = ChunkCutter(HopPolicy(ALIGNED_HOPS))
    assert cutter.push(range(17)) == []
    assert [len(c.tokens) for c in cutter.push([17])] == [18]
    assert cutter.push(range(9)) == []
    assert [len(c.tokens) for c in cutter.push(range(26))] == [10, 25]
    assert [len(c.tokens) for c in cutter.finish()] == [0]


@pytest.mark.parametrize("hops", [(), (0,), (15, -1)])
def test_bad_hops_are_named(hops):
    with pytest.raises(ValueError, match=r"hops: .* is not a list of positive"):
        HopPolicy(hops)


def test_bad_lookahead_is_named():
    with pytest.raises(ValueError, match="lookahead: -1"):
        HopPolicy((25,), -1)


@pytest.mark.parametrize("hops", [ALIGNED_HOPS, EARLIEST_HOPS, STEADY_HOPS, DEMO_SERVER_HOPS, (25,), (7, 18, 50)])
@pytest.mark.parametrize("count", [30, 63, 200, 333])
def test_joined_chunks_meet_on_block_boundaries_and_lose_nothing(hops, count):
    policy = HopPolicy(hops, block=25)
    waiting = deque(cut(list(range(count)), hops, 5))
    ends = {c.end for c in waiting}
    joined = []
    while waiting:
        joined.append(take_joined(waiting, policy))
    assert [t for c in joined for t in c.tokens] == list(range(count)) and joined[-1].end == count
    assert all(end % 25 == 0 for end in ends - {c.end for c in joined})
    assert sum(c.hop for c in joined) == count
    assert joined[0].flag & ChunkFlag.START and joined[-1].flag & ChunkFlag.FINAL
    assert all(c.hop <= max(policy.most, *hops) for c in joined[:-1])


def test_hops_of_a_request():
    assert requested_hops("15, 10,25") == (15, 10, 25)
    for text in ("", "15,", "a", "4", "101", "15;10", ",".join(["25"] * 17)):
        with pytest.raises(InvalidRequest, match=r"hops: is .*; send up to 16 numbers of 5 to 100 tokens"):
            requested_hops(text)
