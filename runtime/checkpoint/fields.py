"""Reading JSON configuration with errors that name the file and the key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from runtime.checkpoint.files import AGAIN, one_line, read_json, shown
from runtime.errors import BuildError

WHOLE = "the whole downloaded checkpoint directory"


class Fields:
    """A JSON object whose missing or ill-typed keys give a typed error.

    Args:
        path: the file, for messages.
        values: the object.
        prefix: where the object stands in the file, for messages.
    """

    def __init__(self, path: Path, values: dict[str, Any], prefix: str = "") -> None:
        self.path, self.values, self.prefix = path, values, prefix

    @classmethod
    def read(cls, path: Path) -> Fields:
        """Raises BuildError when the file is missing or no JSON object."""
        values = read_json(path, WHOLE)
        if not isinstance(values, dict):
            raise BuildError(path.name, "is not a JSON object", AGAIN)
        return cls(path, values)

    def section(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self.path, self.get(key, dict), f"{self.prefix}{key}.")

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """A value of the given type; integers count as floats, which are finite. Raises BuildError."""
        value = self.values.get(key, default)
        if value is ...:
            raise self.error(key, "is missing", "check the checkpoint's version")
        if not _is(value, kind):
            raise self.error(key, f"is {shown(value)}", f"a value of type {kind.__name__} is needed")
        return float(value) if kind is float else value

    def refuse(self, key: str, supported: tuple[Any, ...]) -> None:
        """Raises BuildError unless the key is absent or has one of the supported values."""
        value = self.values.get(key, supported[0])
        if value not in supported:
            raise self.error(key, f"is {shown(value)}", f"only {supported} is implemented here")

    def error(self, key: str, problem: str, remedy: str) -> BuildError:
        """An error that names the file and the key."""
        return BuildError(f"{self.path.name}: {self.prefix}{one_line(key)}", problem, remedy)


def _is(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is not float:
        return isinstance(value, kind)
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
