"""Limits of requests as they are written on the command line of the build."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from runtime.errors import BuildError
from runtime.serving.limits import RequestLimits

_KINDS: dict[str, Any] = {item.name: type(item.default) for item in dataclasses.fields(RequestLimits)}


def limits_of(given: Iterable[str]) -> RequestLimits:
    """``name=value`` pairs as limits.

    Raises:
        BuildError: naming the pair and what is known.
    """
    try:
        return RequestLimits(**dict(map(_pair, given)))
    except ValueError as error:
        raise BuildError("limit", str(error), "correct the value") from None


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if not value or name not in _KINDS:
        raise BuildError("limit", f"{text!r} is not name=value", f"the names are {', '.join(_KINDS)}")
    try:
        return name, _KINDS[name](value)
    except ValueError:
        raise BuildError("limit", f"{name}: {value!r} is no number", "correct the value") from None
