"""Outputs of two engines side by side: errors, the first id that differs, a verdict, a table.

The bounds are estimates (rounding of 36 layers in 16 bit, and of int8 weights); the first GPU run will
say how much tighter they can be. They are fractions of the largest reference value of the case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from builders.parity.play import Output


@dataclass(frozen=True, slots=True)
class Bounds:
    """Largest error of hidden states and of logits, as fractions of the largest reference value."""

    hidden: float
    logits: float

    def __post_init__(self) -> None:
        if not (0 < self.hidden < 1 and 0 < self.logits < 1):
            raise ValueError(f"bounds: {self.hidden} and {self.logits} are not fractions")


BOUNDS = {
    "float32": Bounds(1e-4, 1e-4),
    "bfloat16": Bounds(0.08, 0.08),  # twice what the tiny checkpoint shows in torch's own bf16
    "float16": Bounds(0.02, 0.02),
    "w8a16": Bounds(0.15, 0.15),
    "int8": Bounds(0.15, 0.15),
    "fp8": Bounds(0.3, 0.3),
}


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first greedy id that differs: ``margin`` is how much lower the reference rates the other id."""

    trace: int
    position: int
    reference: int
    found: int
    margin: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One case of one engine. ``hidden_error`` is None where the engine gives no hidden states."""

    engine: str
    case: str
    pieces: int
    hidden_error: float | None
    hidden_bound: float
    logits_error: float
    logits_bound: float
    divergence: Divergence | None

    @property
    def passed(self) -> bool:
        """Whether errors are within their bounds and every differing id is explained by them."""
        # Written so that a NaN fails.
        hidden = self.hidden_error is None or self.hidden_error <= self.hidden_bound
        explained = self.divergence is None or self.divergence.margin <= 2 * self.logits_bound
        return bool(hidden and self.logits_error <= self.logits_bound and explained)

    def record(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self) | {"passed": self.passed}


def compare(engine: str, case: str, reference: Sequence[Output], found: Sequence[Output], bounds: Bounds) -> Finding:
    """Judges the outputs of one case. Both sides must have played the same script."""
    pairs = list(zip(reference, found, strict=True))
    assert all(a.piece == b.piece for a, b in pairs), "two different scripts"
    hidden = [(a.hidden, b.hidden) for a, b in pairs if a.hidden is not None and b.hidden is not None]
    logits = [(a.logits, b.logits) for a, b in pairs]
    return Finding(
        engine=engine,
        case=case,
        pieces=len(pairs),
        hidden_error=_largest_error(hidden) if hidden else None,
        hidden_bound=bounds.hidden * _largest(a for a, _ in hidden) if hidden else 0.0,
        logits_error=_largest_error(logits),
        logits_bound=bounds.logits * _largest(a for a, _ in logits),
        divergence=next((d for a, b in pairs if (d := _divergence(a, b)) is not None), None),
    )


def _largest(tensors: Iterable[torch.Tensor]) -> float:
    return max(float(t.abs().max()) for t in tensors)


def _largest_error(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    errors = [float((a.float() - b.float()).abs().max()) for a, b in pairs]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _divergence(reference: Output, found: Output) -> Divergence | None:
    wanted, got = int(reference.logits.argmax()), int(found.logits.argmax())
    if wanted == got:
        return None
    piece = reference.piece
    margin = float(reference.logits[wanted] - reference.logits[got])
    return Divergence(piece.trace, piece.begin + piece.length - 1, wanted, got, margin)


HEADINGS = ("engine", "case", "hidden error (bound)", "logits error (bound)", "first other greedy id", "")


def table(findings: Sequence[Finding]) -> str:
    """The findings for people: one line per engine and case."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    rows += [_row(finding) for finding in findings]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _row(finding: Finding) -> tuple[str, ...]:
    other = "none"
    if finding.divergence is not None:
        d = finding.divergence
        other = f"trace {d.trace} position {d.position}: {d.found} for {d.reference}, margin {d.margin:.2g}"
    hidden = "-" if finding.hidden_error is None else f"{finding.hidden_error:.2e} ({finding.hidden_bound:.2e})"
    logits = f"{finding.logits_error:.2e} ({finding.logits_bound:.2e})"
    return finding.engine, finding.case, hidden, logits, other, "pass" if finding.passed else "FAIL"
