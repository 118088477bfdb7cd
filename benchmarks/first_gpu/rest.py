"""What a bench still owes when its process ended early, as a command for another process.

An illegal address, say, stays with a process until it ends: every later call of the device fails. The bench
notes what it is at and what it has done (``benchmarks.gpu.ledger``), so another process takes up the rest.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.first_gpu.plan import Part

CHECKS = "checks"


def rest_of(part: Part, found: dict[str, Any] | None, number: int) -> Part | None:
    """The part without what was done and without what it ended at; None when nothing is left.

    Args:
        found: its result file, None when there is none.
        number: of this process among those of the part, for the name of its result.
    """
    if found is None or (found.get("finished") and not found.get("lost")):
        return None
    done = set(found.get("seconds", {})) | {found.get("running")}
    parts = [name for name in found.get("parts", ()) if name not in done]
    left: list[str] = []
    if CHECKS in found.get("parts", ()) and CHECKS in {found.get("running"), found.get("lost")}:
        left = [name for name in found.get("comparisons", ()) if name not in found.get("compared", ())]
        parts = [*[CHECKS] * bool(left), *parts]
    if not parts:
        return None
    path = Path(part.result)
    result = f"{path.stem.rstrip('0123456789').rstrip('_')}_{number}{path.suffix}"
    command = _with(part.command, "--parts", ",".join(parts))
    command = _with(command, "--json", str(Path(_value(part.command, "--json")).with_name(result)))
    if left:
        command = _with(command, "--comparisons", ";".join(left))
    return replace(part, name=f"{part.name.split(' ')[0]} again {number}", command=command, result=result)


def read_result(out: Path, part: Part) -> dict[str, Any] | None:
    """The result file of a part, None where it left none."""
    try:
        found = json.loads((out / part.result).read_text("utf-8")) if part.result else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _value(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1] if option in command else ""


def _with(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    if option not in command:
        return (*command, option, value)
    place = command.index(option) + 1
    return (*command[:place], value, *command[place + 1 :])
