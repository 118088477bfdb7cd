"""Request parameters as they are written on a command line."""

from __future__ import annotations

import argparse

from client.request import Scalar

BOOLEANS = {"true": True, "false": False}


def parameter_set(text: str) -> dict[str, Scalar]:
    """`max_tokens=20,seed=1,greedy=true` as values.

    Raises:
        argparse.ArgumentTypeError: a part has no name or no value.
    """
    made: dict[str, Scalar] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not name or not equals or not value:
            raise argparse.ArgumentTypeError(f"{part!r} is not name=value")
        made[name] = _value(value)
    return made


def _value(text: str) -> Scalar:
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
