"""The recorded facts of tensorrt_llm: signatures that our doubles hold every call against.

The library itself cannot be had without a GPU image; TensorRT's own calls are checked against its real
bindings (``test_bindings.py``).
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("tensorrt_llm_1_2_1.json")


@dataclass(frozen=True)
class Parameter:
    name: str
    keyword_only: bool
    required: bool


@dataclass(frozen=True)
class Signature:
    """``parameters`` without ``self``."""

    parameters: tuple[Parameter, ...]

    def problems(self, positional: int, keywords: list[str]) -> list[str]:
        """Why a call with so many positional arguments and these keywords would not fit."""
        by_position = [p for p in self.parameters if not p.keyword_only]
        if positional > len(by_position):
            return [f"{positional} positional arguments, {len(by_position)} are recorded"]
        names = {p.name for p in self.parameters}
        taken = {p.name for p in by_position[:positional]} | set(keywords)
        found = [f"keyword {k!r} is not recorded" for k in keywords if k not in names]
        twice = [p.name for p in by_position[:positional] if p.name in keywords]
        missing = [p.name for p in self.parameters if p.required and p.name not in taken]
        return found + [f"{name!r} is given twice" for name in twice] + [f"{name!r} is missing" for name in missing]


@dataclass(frozen=True)
class Contract:
    """``raw``: the file; ``signatures``: by import path."""

    raw: dict
    signatures: dict[str, Signature]


def split_parameters(text: str) -> list[str]:
    """Splits at commas that are not inside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def parse_signature(text: str, fields: dict[str, dict]) -> Signature:
    """``name(parameters) -> type``. ``**fields, see X`` stands for the recorded fields of X."""
    inside, rest = re.match(r"[^(]*\((.*?)\)((?: ->|, see|;|$).*)", text).groups()
    parameters, keyword_only = [], False
    for part in split_parameters(inside):
        if part == "*":
            keyword_only = True
        elif part == "**fields":
            parameters += [Parameter(name, True, False) for name in fields[re.search(r"see (\w+)", rest)[1]]]
        elif part not in ("self", "...") and not part.startswith("*"):
            parameters.append(Parameter(re.match(r"\w+", part)[0], keyword_only, "=" not in part))
    return Signature(tuple(parameters))


@cache
def load() -> Contract:
    """The file, with the signatures of all that is called."""
    raw = json.loads(FILE.read_text())
    called = [entry for entry in raw["symbols"] if "(" in entry["signature"].split(" ")[0]]
    return Contract(raw, {entry["import"]: parse_signature(entry["signature"], raw) for entry in called})
