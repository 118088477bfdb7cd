"""The five cases that an engine must pass before it serves: which rows of which sequence run in which step.

A case is a script over *traces*, sequences whose input rows are all known beforehand. So every engine is
fed the same rows whatever it computes, and what it computes is compared position by position. Plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TRACES = 4  # sequences that the scripts need
GENERATED = 10  # generation steps of a sequence
FIRST_CHUNK = 7  # an odd size: no chunk ends where a block does


@dataclass(frozen=True, slots=True)
class Join:
    """A trace takes a slot and the blocks for all its positions."""

    trace: int
    slot: int


@dataclass(frozen=True, slots=True)
class Leave:
    """A trace gives slot and blocks back."""

    trace: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions ``begin .. begin + length - 1`` of a trace; a context where they lie in its prompt."""

    trace: int
    begin: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """One packed call; contexts come first."""

    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Packed rows of the call."""
        return sum(piece.length for piece in self.pieces)


Action = Join | Leave | Step


@dataclass(frozen=True, slots=True)
class Case:
    """A script. ``shuffled``: physical blocks are handed out in random order."""

    name: str
    actions: tuple[Action, ...]
    shuffled: bool = False


def five_cases(prompts: Sequence[int], longest_chunk: int, most_rows: int) -> tuple[Case, ...]:
    """The scripts for traces with these prompt lengths.

    Args:
        prompts: rows of each prompt; every trace must have ``GENERATED`` more.
        longest_chunk: context rows that one sequence may have in a step.
        most_rows: rows that a step may have.

    Raises:
        ValueError: the prompts do not suit the scripts or these limits.
    """
    if len(prompts) != TRACES:
        raise ValueError(f"prompts: {len(prompts)} lengths, the cases need {TRACES}")
    if min(prompts) <= FIRST_CHUNK or max(prompts) > longest_chunk:
        raise ValueError(f"prompts: {list(prompts)} are not all within {FIRST_CHUNK + 1}..{longest_chunk}")
    cases = _cases(prompts)
    fullest = max(a.rows for case in cases for a in case.actions if isinstance(a, Step))
    if fullest > most_rows:
        raise ValueError(f"prompts: {list(prompts)} give a step of {fullest} rows, the engine takes {most_rows}")
    return cases


def _cases(prompts: Sequence[int]) -> tuple[Case, ...]:
    whole = [Piece(trace, 0, length) for trace, length in enumerate(prompts)]
    return (
        Case("single context", (Join(0, 0), Step((whole[0],)))),
        Case("context and 10 generation steps", (Join(0, 0), Step((whole[0],)), *_generate(prompts, [0], GENERATED))),
        Case("chunked context", (Join(0, 2), *_chunks(prompts[0]), *_generate(prompts, [0], 2))),
        Case("mixed batch", _mixed(prompts, whole)),
        Case("blocks out of order", _out_of_order(prompts, whole), shuffled=True),
    )


def _generate(prompts: Sequence[int], traces: Sequence[int], steps: int, first: int = 0) -> list[Step]:
    """Generation steps ``first ..`` of some traces together."""
    return [Step(tuple(Piece(t, prompts[t] + first + i, 1) for t in traces)) for i in range(steps)]


def _chunks(length: int) -> list[Step]:
    middle = (FIRST_CHUNK + length) // 2
    return [Step((Piece(0, a, b - a),)) for a, b in ((0, FIRST_CHUNK), (FIRST_CHUNK, middle), (middle, length))]


def _mixed(prompts: Sequence[int], whole: Sequence[Piece]) -> tuple[Action, ...]:
    """Ragged contexts together, then first and later chunks beside generating sequences."""

    def row(trace: int, number: int) -> Piece:
        return Piece(trace, prompts[trace] + number, 1)

    begun = Piece(2, 0, FIRST_CHUNK)
    rest = Piece(2, FIRST_CHUNK, prompts[2] - FIRST_CHUNK)
    return (
        *(Join(trace, TRACES - 1 - trace) for trace in range(TRACES)),
        Step((whole[0], whole[1])),
        Step((begun, row(1, 0), row(0, 0))),
        Step((whole[3], rest, row(0, 1), row(1, 1))),
        Step((row(0, 2), row(1, 2), row(2, 0), row(3, 0))),
    )


def _out_of_order(prompts: Sequence[int], whole: Sequence[Piece]) -> tuple[Action, ...]:
    """Sequences come and go; later ones get the blocks of those that left."""

    def row(trace: int, number: int) -> Piece:
        return Piece(trace, prompts[trace] + number, 1)

    return (
        Join(0, 0),
        Join(1, 1),
        Step((whole[1], whole[0])),
        *_generate(prompts, [1, 0], 2),
        Leave(0),
        Join(2, 0),
        Step((whole[2], row(1, 2))),
        Join(3, 2),
        Step((whole[3], row(1, 3), row(2, 0))),
        Leave(1),
        *(Step((row(3, i), row(2, i + 1))) for i in range(2)),
    )
