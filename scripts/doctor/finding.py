"""What a check found, as plain values. Needs no library, so that it runs where others do not load."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this machine.

    Args:
        name: what was looked at.
        state: `ok`, `warn` (works, but) or `FAIL`.
        found: what is there.
        fix: what to do; empty when there is nothing to do.
    """

    name: str
    state: str
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.state not in (OK, WARN, FAIL):
            raise ValueError(f"state: {self.state!r} is none of {OK}, {WARN}, {FAIL}")
        if self.state == FAIL and not self.fix:
            raise ValueError(f"fix: {self.name} fails and names no remedy")

    def lines(self) -> str:
        """For people."""
        remedy = f"\n       fix: {self.fix}" if self.fix else ""
        return f"{self.state:<5} {self.name}: {self.found}{remedy}"
