"""Reading JSON configuration with errors that name the file and the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.errors import BuildError


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
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise BuildError(
                path.name, f"not found in {path.parent}", "give the whole downloaded checkpoint directory"
            ) from None
        except ValueError as error:
            raise BuildError(path.name, f"is not JSON ({error})", "download the file again") from None
        if not isinstance(values, dict):
            raise BuildError(path.name, "is not a JSON object", "download the file again")
        return cls(path, values)

    def section(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self.path, self.get(key, dict), f"{self.prefix}{key}.")

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """A value of the given type; integers count as floats. Raises BuildError."""
        value = self.values.get(key, default)
        if value is ...:
            raise BuildError(f"{self.path.name}: {self.prefix}{key}", "is missing", "check the checkpoint's version")
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BuildError(
                f"{self.path.name}: {self.prefix}{key}", f"is {value!r}", f"a value of type {kind.__name__} is needed"
            )
        return value

    def refuse(self, key: str, supported: tuple[Any, ...]) -> None:
        """Raises BuildError unless the key is absent or has one of the supported values."""
        value = self.values.get(key, supported[0])
        if value not in supported:
            raise BuildError(
                f"{self.path.name}: {self.prefix}{key}", f"is {value!r}", f"only {supported} is implemented here"
            )
