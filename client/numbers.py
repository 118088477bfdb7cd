"""Converts numbers of any library to those that can be sent."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import ChatError

INT64 = range(-(2**63), 2**63)
EXACT = 2**63
FOREVER_S = 1e8  # three years: more is no limit


def scalar(value: Any) -> Any:
    """A number, boolean or string of Python for one of another library; anything else as it is."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)  # str() of an enumeration's member is its name
    if isinstance(value, Decimal | Fraction):
        return _of_exact(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # an array or a tensor of no axes
        return scalar(value.item())
    return value


def _of_exact(value: Decimal | Fraction) -> Any:
    try:
        rough = float(value)  # first: the whole number of 1e999999 takes minutes
    except (ValueError, OverflowError):
        return math.nan
    return int(value) if math.isfinite(rough) and abs(rough) < EXACT and value == int(value) else rough


def finite(field: str, value: Any) -> Any:
    """The value, unless it is a number that cannot be sent.

    Raises:
        ChatError: it is NaN, infinite, or an integer beyond 64 bits.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ChatError("INVALID_ARG", field, f"is {value}; give a finite number")
    if isinstance(value, int) and value not in INT64:
        raise ChatError("INVALID_ARG", field, "does not fit 64 bits; give a smaller number")
    return value


def whole(field: str, value: Any) -> int:
    """A whole number, whatever its type.

    Raises:
        ChatError: it is none.
    """
    number = scalar(value)
    if isinstance(number, str) and number.strip().isascii() and number.strip().isdigit() and len(number) < 20:
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ChatError("INVALID_ARG", field, f"has type {type(value).__name__}; give a whole number")
    finite(field, number)
    if number != int(number):
        raise ChatError("INVALID_ARG", field, f"is {number}; give a whole number")
    return int(number)


def seconds(field: str, value: Any) -> float | None:
    """Seconds of a limit; None for no limit.

    Raises:
        ChatError: it is no number, or below 0.
    """
    number = scalar(value)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number or number < 0:
        raise ChatError("INVALID_ARG", field, f"is {value!r:.40}; give seconds, 0 or more, or None")
    return float(number) if number < FOREVER_S else None
