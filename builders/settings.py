"""Options as they are written on the command line of the build: ``section.name=value``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from runtime.engines.options import EngineOptions
from runtime.errors import BuildError
from runtime.frontend.options import EncoderOptions
from runtime.options import ServingOptions, check_target, chosen_sound
from runtime.requests.limits import RequestLimits
from runtime.token2wav.options import Token2WavOptions

T = TypeVar("T")
NONE = "none"
SECTIONS: dict[str, type] = {
    "encoder": EncoderOptions,
    "engine": EngineOptions,
    "limits": RequestLimits,
    "serving": ServingOptions,
    "token2wav": Token2WavOptions,
}
# What follows from the checkpoint, from the target, or from a variable of the build.
_FIXED = {
    "encoder": {"graph", "frames", "groups", "group_size", "hidden"},
    "engine": {"device", "linear"},
    "token2wav": {"dir"},
}


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _perhaps(text: str) -> int | None:
    return None if text == NONE else int(text)


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    str: (str, "a word"),
    bool: (_flag, "true or false"),
    tuple[int, ...]: (_numbers, "whole numbers with commas"),
    int | None: (_perhaps, f"a whole number or {NONE}"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by section and name; what is not given keeps its default."""

    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Iterable[str]) -> Settings:
        """Raises BuildError naming the pair at fault and what is known."""
        values: dict[str, dict[str, Any]] = {}
        for text in given:
            section, name, value = _pair(text)
            values.setdefault(section, {})[name] = value
        return cls(values)

    def apply(self, section: str, options: T) -> T:
        """``options`` with what was set of them.

        Raises:
            BuildError: a value that they do not take.
        """
        try:
            return dataclasses.replace(options, **self.values.get(section, {}))  # type: ignore[type-var]
        except ValueError as error:
            raise BuildError(f"set {section}", str(error), "correct the value") from None

    def check(self, target: str, engine: str = "") -> None:
        """Raises BuildError for what no build of the target and of its sound could use: it may take an hour to ask."""
        encoder = self.apply("encoder", EncoderOptions("", 1, 1, 1, 1))
        sound = self.apply("token2wav", Token2WavOptions())
        self.apply("engine", EngineOptions(max_positions=1))  # how many there are, the checkpoint decides
        for section in ("limits", "serving"):
            self.apply(section, SECTIONS[section]())
        try:
            check_target(target, chosen_sound(target, engine), encoder, sound)
        except ValueError as error:
            raise BuildError("set", str(error), "correct the value") from None


def known(section: str) -> dict[str, Any]:
    """Names that may be set in a section, and their types."""
    hints = get_type_hints(SECTIONS[section])
    names = [item.name for item in dataclasses.fields(SECTIONS[section])]
    return {name: hints[name] for name in names if name not in _FIXED.get(section, ())}


def _pair(text: str) -> tuple[str, str, Any]:
    path, _, value = text.partition("=")
    section, _, name = path.partition(".")
    if section not in SECTIONS or not name or not value:
        problem = f"{text!r} is not section.name=value"
        raise BuildError("set", problem, f"the sections are {', '.join(SECTIONS)}")
    kinds = known(section)
    if name not in kinds:
        raise BuildError("set", f"{section} has no option {name!r}", f"the names are {', '.join(kinds)}")
    read, words = _READERS[kinds[name]]
    try:
        return section, name, read(value)
    except (ValueError, KeyError):
        raise BuildError("set", f"{path}: {value!r} is not {words}", "correct the value") from None
