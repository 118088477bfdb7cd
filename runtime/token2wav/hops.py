"""When a chunk of speech tokens is cut, and when waiting chunks may be joined. Plain Python: counts only.

A chunk needs ``hop`` tokens and the flow's lookahead after them; the next chunk then needs only its
own hop. Source: reference sections 2.1 and 2.5; the measurements behind the defaults are in the README.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.contracts import ChunkFlag
from runtime.errors import InvalidRequest

STEADY_HOPS = (15, 10, 10, 15, 25)  # a listener who plays at once forgives frames of 153 ms
ALIGNED_HOPS = (15, 10, 25)  # on block boundaries from the second chunk on; forgives 120 ms
EARLIEST_HOPS = (7, 5, 5, 8, 10, 15, 25)  # sound after two frames of the backbone instead of four; forgives 120 ms
DEMO_SERVER_HOPS = (15,)  # the authors' demo server; its flow attends to everything (``full_attention``)
DEFAULT_HOPS = STEADY_HOPS

# What a request may ask for: smaller hops cost too many calls, and the smallest first one that sounds is 5.
SMALLEST_HOP, LARGEST_HOP, MOST_HOPS = 5, 100, 16


@dataclass(frozen=True, slots=True)
class HopPolicy:
    """Tokens that each chunk renders: the first ones as listed, the last number repeats.

    ``lookahead`` tokens beyond a chunk must be known before it can be rendered. Waiting chunks are
    joined up to ``most`` tokens where they meet at a multiple of ``block`` tokens, which changes
    nothing in the sound; ``block`` 0: never.
    """

    hops: tuple[int, ...] = DEFAULT_HOPS
    lookahead: int = 3
    block: int = 0
    most: int = LARGEST_HOP

    def __post_init__(self) -> None:
        if not self.hops or min(self.hops) < 1:
            raise ValueError(f"hops: {self.hops} is not a list of positive token counts")
        if self.lookahead < 0:
            raise ValueError(f"lookahead: {self.lookahead} is below 0")

    def hop(self, chunk: int) -> int:
        """Tokens of a chunk, counted from 0."""
        return self.hops[min(chunk, len(self.hops) - 1)]


def requested_hops(text: str) -> tuple[int, ...]:
    """Hops that a client asks for, as numbers between commas.

    Raises:
        InvalidRequest: not such a list, or outside the bounds of this file.
    """
    remedy = (
        f"send up to {MOST_HOPS} numbers of {SMALLEST_HOP} to {LARGEST_HOP} tokens between commas, such as 15,10,25"
    )
    try:
        hops = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidRequest("hops", f"is {text[:40]!r}", remedy) from None
    if len(hops) > MOST_HOPS or not SMALLEST_HOP <= min(hops) <= max(hops) <= LARGEST_HOP:
        raise InvalidRequest("hops", f"is {text[:40]!r}", remedy)
    return hops


@dataclass(frozen=True, slots=True)
class Cut:
    """Tokens that token2wav has not seen yet, and what they are to their stream.

    ``hop`` tokens are rendered by it, up to token ``end`` of the span.
    """

    tokens: tuple[int, ...]
    flag: ChunkFlag
    hop: int
    end: int


class ChunkCutter:
    """Cuts one span of speech."""

    def __init__(self, policy: HopPolicy) -> None:
        self._policy = policy
        self._waiting: list[int] = []
        self._given = 0  # tokens handed out
        self._end = 0  # tokens rendered by the chunks so far
        self._cuts = 0

    def push(self, tokens: Sequence[int]) -> list[Cut]:
        """Takes new tokens and returns the chunks that can now be rendered."""
        self._waiting += tokens
        cuts = []
        while (
            self._given + len(self._waiting)
            >= (end := self._end + self._policy.hop(self._cuts)) + self._policy.lookahead
        ):
            cuts.append(self._cut(end + self._policy.lookahead - self._given, end, ChunkFlag.CONTINUE))
        return cuts

    def finish(self) -> list[Cut]:
        """The last chunk: whatever is left, and the tokens that were only looked at. No tail is lost."""
        return [self._cut(len(self._waiting), self._given + len(self._waiting), ChunkFlag.FINAL)]

    def _cut(self, count: int, end: int, flag: ChunkFlag) -> Cut:
        tokens, self._waiting = tuple(self._waiting[:count]), self._waiting[count:]
        flag |= ChunkFlag.START if not self._cuts else ChunkFlag.CONTINUE
        cut = Cut(tokens, flag, end - self._end, end)
        self._given += count
        self._end = end
        self._cuts += 1
        return cut


def take_joined(waiting: deque[Cut], policy: HopPolicy) -> Cut:
    """Removes the first waiting chunk, with those after it that may join it, as one.

    Frames before a block boundary never depend on what comes after it, so a server that is behind may
    render in one call what it would otherwise render in several, and no listener can tell.
    """
    cut = waiting.popleft()
    while waiting and policy.block and not cut.flag & ChunkFlag.FINAL:
        following = waiting[0]
        if cut.end % policy.block or cut.hop + following.hop > policy.most:
            break
        waiting.popleft()
        cut = Cut(cut.tokens + following.tokens, cut.flag | following.flag, cut.hop + following.hop, following.end)
    return cut
