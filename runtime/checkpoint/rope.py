"""Rotary positions: their base, wherever a version of transformers writes it. Only the plain kind is implemented."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import shown

THETA = "rope_theta"
SECTIONS = ("rope_parameters", "rope_scaling")  # of transformers 5, and of all before it
KINDS = ("rope_type", "type")
PLAIN, WHOLE = "default", "partial_rotary_factor"


def rope_theta(fields: Fields) -> float:
    """The base of a decoder's rotary positions.

    Raises:
        BuildError: it is stated nowhere or twice with two values, or something else than plain positions is asked for.
    """
    found = list(_thetas(fields))
    if not found:
        raise fields.error(THETA, "is missing, in rope_parameters too", "check the checkpoint's version")
    (_, theta), *others = found
    for where, other in others:
        if other != theta:
            problem = f"is {theta:g}, but {where.removeprefix(fields.prefix)} is {other:g}"
            raise fields.error(THETA, problem, "state one value")
    return theta


def _thetas(fields: Fields) -> Iterator[tuple[str, float]]:
    """Where a base is stated, and which."""
    if fields.values.get(THETA) is not None or not any(fields.values.get(name) for name in SECTIONS):
        yield fields.prefix + THETA, _positive(fields, THETA)
    for name in SECTIONS:
        if fields.values.get(name) is not None:
            yield from _section(fields.section(name))


def _section(section: Fields) -> Iterator[tuple[str, float]]:
    if section.values and all(isinstance(value, dict) for value in section.values.values()):
        for layers in section.values:  # one object for every kind of layers
            yield from _section(section.section(layers))
        return
    for kind in KINDS:
        section.refuse(kind, (PLAIN, None))
    section.refuse(WHOLE, (1.0, None))
    for key, value in section.values.items():
        if value is not None and key not in (*KINDS, WHOLE, THETA):
            raise section.error(key, f"is {shown(value)}", "only plain rotary positions are implemented here")
    if section.values.get(THETA) is not None:
        yield section.prefix + THETA, _positive(section, THETA)


def _positive(fields: Fields, key: str) -> float:
    value: float = fields.get(key, float)
    if value <= 0:
        raise fields.error(key, f"is {value:g}", "a number above 0 is needed")
    return value
