"""Reads request parameters from a command line."""

from __future__ import annotations

import argparse

from .request import RESERVED, Scalar

BOOLEANS = {"true": True, "false": False}


def parameter_set(text: str) -> dict[str, Scalar]:
    """`max_tokens=20,hops=15,25,greedy=true` as values; a part without `=` belongs to the value before it.

    Raises:
        argparse.ArgumentTypeError: a part has no name or no value, or a name is no request parameter.
    """
    made: dict[str, str] = {}
    name = ""
    for part in text.split(","):
        before, equals, value = part.partition("=")
        if equals:
            name = before.strip()
            made[name] = value
        elif name:
            made[name] += f",{part}"
        elif part.strip():
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is not name=value")
    return {name: _value(_checked(name, value.strip().rstrip(", "))) for name, value in made.items()}


def _checked(name: str, value: str) -> str:
    if not name or not value:
        raise argparse.ArgumentTypeError(f"'{name}={value}' is not name=value")
    if name in RESERVED:
        raise argparse.ArgumentTypeError(f"{name} is no request parameter; leave it out")
    return value


def _value(text: str) -> Scalar:
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
