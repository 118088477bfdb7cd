"""The end of every benchmark: its result as the last line, and in a file where one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def finish(result: dict[str, Any], path: Path | None) -> int:
    """Prints and writes the result; returns the exit status."""
    line = json.dumps(result)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line + "\n")
    print(line)
    return 0
