"""Ranges of the shapes that a graph is asked for: the optimisation profile of a compiled plan. Plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest, usual and largest shape of one input."""

    low: Shape
    usual: Shape
    high: Shape

    def covers(self, shape: Shape) -> bool:
        """Whether a plan that is compiled for this range takes the shape."""
        return len(shape) == len(self.low) and all(
            low <= size <= high for low, size, high in zip(self.low, shape, self.high, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Smallest, usual and largest size of one axis."""

    low: int
    usual: int
    high: int

    def __add__(self, more: int) -> Span:
        return Span(self.low + more, self.usual + more, self.high + more)

    def __mul__(self, factor: int) -> Span:
        return Span(self.low * factor, self.usual * factor, self.high * factor)


Profile = dict[str, Range]


def profile_of(inputs: Mapping[str, tuple[int | Span, ...]]) -> Profile:
    """A profile from the axes of every input; a number is an axis that never changes."""

    def pick(axes: tuple[int | Span, ...], name: str) -> Shape:
        return tuple(axis if isinstance(axis, int) else getattr(axis, name) for axis in axes)

    return {name: Range(pick(axes, "low"), pick(axes, "usual"), pick(axes, "high")) for name, axes in inputs.items()}
