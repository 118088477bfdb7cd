"""When a chunk of speech tokens is cut. Plain Python: counts only.

A chunk needs ``hop`` tokens and the flow's lookahead after them; the next chunk then needs only its
own hop. Source: reference sections 2.1 and 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.contracts import ChunkFlag

DEFAULT_HOPS = (15, 10, 25)  # aligned with the blocks of attention from the second chunk on
STEADY_HOPS = (15, 10, 10, 15, 25)  # forgives late early frames: 153 ms each instead of 120
DEMO_SERVER_HOPS = (15,)  # the authors' demo server; its flow attends to everything (``full_attention``)


@dataclass(frozen=True, slots=True)
class HopPolicy:
    """Tokens that each chunk renders: the first ones as listed, the last number repeats.

    ``lookahead`` tokens beyond a chunk must be known before it can be rendered.
    """

    hops: tuple[int, ...] = DEFAULT_HOPS
    lookahead: int = 3

    def __post_init__(self) -> None:
        if not self.hops or min(self.hops) < 1:
            raise ValueError(f"hops: {self.hops} is not a list of positive token counts")
        if self.lookahead < 0:
            raise ValueError(f"lookahead: {self.lookahead} is below 0")

    def hop(self, chunk: int) -> int:
        """Tokens of a chunk, counted from 0."""
        return self.hops[min(chunk, len(self.hops) - 1)]


@dataclass(frozen=True, slots=True)
class Cut:
    """Tokens that token2wav has not seen yet, and what they are to their stream."""

    tokens: tuple[int, ...]
    flag: ChunkFlag


class ChunkCutter:
    """Cuts one span of speech."""

    def __init__(self, policy: HopPolicy) -> None:
        self._policy = policy
        self._waiting: list[int] = []
        self._given = 0  # tokens handed out
        self._end = policy.hop(0)  # tokens rendered once the next chunk is
        self._cuts = 0

    def push(self, tokens: Sequence[int]) -> list[Cut]:
        """Takes new tokens and returns the chunks that can now be rendered."""
        self._waiting += tokens
        cuts = []
        while self._given + len(self._waiting) >= self._end + self._policy.lookahead:
            cuts.append(self._cut(self._end + self._policy.lookahead - self._given, ChunkFlag.CONTINUE))
            self._end += self._policy.hop(self._cuts)
        return cuts

    def finish(self) -> list[Cut]:
        """The last chunk: whatever is left, and the tokens that were only looked at. No tail is lost."""
        return [self._cut(len(self._waiting), ChunkFlag.FINAL)]

    def _cut(self, count: int, flag: ChunkFlag) -> Cut:
        tokens, self._waiting = tuple(self._waiting[:count]), self._waiting[count:]
        flag |= ChunkFlag.START if not self._cuts else ChunkFlag.CONTINUE
        self._given += count
        self._cuts += 1
        return Cut(tokens, flag)
