"""The recorded facts of tensorrt and tensorrt_llm as symbols with signatures.

Two files: what was recorded first, and the marked additions that our code made necessary. A third would
be one more name in ``FILES``.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
FILES = ("tensorrt_llm_1_2_1.json", "tensorrt_runtime.json")
LIBRARIES = ("tensorrt", "tensorrt_llm")
POSITIONAL_ONLY = "tensorrt."  # of its calls only the order of arguments is recorded, names may be shortened
PYTHON_TYPES = {"int", "str", "bool", "None", "dict", "type", "float", "bytes", "list[str]"}


@dataclass(frozen=True)
class Parameter:
    name: str
    keyword_only: bool
    required: bool


@dataclass(frozen=True)
class Signature:
    """``parameters`` without ``self``. ``returns`` is the type as written, "" where nobody recorded it."""

    parameters: tuple[Parameter, ...]
    returns: str = ""
    positional_only: bool = False

    def problems(self, positional: int, keywords: list[str]) -> list[str]:
        """Why a call with so many positional arguments and these keywords would not fit."""
        by_position = [p for p in self.parameters if not p.keyword_only]
        if positional > len(by_position):
            return [f"{positional} positional arguments, {len(by_position)} are recorded"]
        names = {p.name for p in self.parameters}
        found = [f"keyword {k!r} is not recorded" for k in keywords if k not in names or self.positional_only]
        taken = {p.name for p in by_position[:positional]} | set(keywords)
        twice = [p.name for p in by_position[:positional] if p.name in keywords]
        missing = [p.name for p in self.parameters if p.required and p.name not in taken]
        return found + [f"{name!r} is given twice" for name in twice] + [f"{name!r} is missing" for name in missing]


@dataclass(frozen=True)
class Symbol:
    """One recorded name. ``signature`` is None for what is not called; ``type`` is an attribute's, as written."""

    path: str
    signature: Signature | None = None
    type: str = ""


@dataclass
class Contract:
    symbols: dict[str, Symbol] = field(default_factory=dict)
    bases: dict[str, list[str]] = field(default_factory=dict)
    raw: dict = field(default_factory=dict)

    def is_module(self, path: str) -> bool:
        return any(name.startswith(path + ".") for name in self.symbols) and not path.rsplit(".", 1)[-1][0].isupper()

    def is_type(self, path: str) -> bool:
        known = path in self.symbols or any(name.startswith(path + ".") for name in self.symbols)
        return known and path.rsplit(".", 1)[-1][0].isupper()

    def member(self, owner: str, name: str) -> Symbol | None:
        """A member of a class, its own or inherited."""
        if f"{owner}.{name}" in self.symbols:
            return self.symbols[f"{owner}.{name}"]
        found = (self.member(base, name) for base in self.bases.get(owner, ()))
        return next((symbol for symbol in found if symbol), None)

    def resolve(self, name: str) -> str | None:
        """The one recorded class of a short name as signatures write it, or None for Python's own types."""
        short = name.removesuffix(" | None").strip()
        paths = {".".join(path.split(".")[: i + 1]) for path in self.symbols for i in range(path.count(".") + 1)}
        found = [path for path in paths if path.rsplit(".", 1)[-1] == short and self.is_type(path)]
        return found[0] if len(found) == 1 else None


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


def parse_signature(text: str, fields: dict[str, dict] | None = None, positional_only: bool = False) -> Signature:
    """``name(parameters) -> type``. ``**fields, see X`` stands for the recorded fields of X."""
    begin = text.index("(")
    depth, end = 0, begin
    while True:
        depth += (text[end] == "(") - (text[end] == ")")
        if depth == 0:
            break
        end += 1
    rest = text[end + 1 :]
    returns = rest.split("->", 1)[1].split(";")[0].strip() if "->" in rest else ""
    parameters, keyword_only = [], False
    for part in split_parameters(text[begin + 1 : end]):
        if part == "*":
            keyword_only = True
        elif part == "**fields":
            table = (fields or {})[re.search(r"see (\w+)", rest)[1]]
            parameters += [Parameter(name, True, False) for name in table]
        elif part not in ("self", "...") and not part.startswith("*"):
            name = re.match(r"\w+", part)[0]
            parameters.append(Parameter(name, keyword_only, "=" not in part))
    return Signature(tuple(parameters), returns, positional_only)


def _enum_members(text: str) -> list[str]:
    words = re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\w+\([^)]*\)", "", text))
    return [word for word in words if word not in ("enum", "str", "with", "member")]


def _add_symbol(contract: Contract, entry: dict) -> None:
    path, text = entry["import"], entry["signature"]
    if not path.startswith(LIBRARIES) or "-" in path:
        return  # a shell command or a C function: nothing that Python imports
    if text.startswith("attribute: "):
        contract.symbols[path] = Symbol(path, type=text.removeprefix("attribute: "))
    elif "enum" in text.split("(")[0]:
        contract.symbols[path] = Symbol(path)
        for member in _enum_members(text):
            contract.symbols[f"{path}.{member}"] = Symbol(f"{path}.{member}", type=path.rsplit(".", 1)[-1])
    elif text.startswith("dict["):
        contract.symbols[path] = Symbol(path, type="dict")
    else:
        signature = parse_signature(text, contract.raw)
        contract.symbols[path] = Symbol(path, signature)


def _add_call(contract: Contract, text: str) -> None:
    """``Type.method(a, b) -> R``, ``Type.attribute`` or ``tensorrt.Type(a)``."""
    name = re.match(r"[\w.]+", text)[0]
    path = "tensorrt." + name.removeprefix("tensorrt.")
    signature = parse_signature(text, positional_only=True) if "(" in text else None
    contract.symbols[path] = Symbol(path, signature)


@cache
def load() -> Contract:
    """Both files as one."""
    contract = Contract()
    for name in FILES:
        values = json.loads((HERE / name).read_text())
        contract.raw |= {k: v for k, v in values.items() if k not in ("symbols", "about")}
        for entry in values["symbols"]:
            assert entry["certainty"] and entry["source"], f"{entry['import']} does not say where it is from"
            _add_symbol(contract, entry)
        for entry in values.get("tensorrt_python_calls", ()):
            _add_call(contract, entry["call"])
    contract.bases = {path: entry["bases"] for path, entry in contract.raw["bases"].items()}
    _add_fields(contract)
    return contract


def _add_fields(contract: Contract) -> None:
    """Constructor keywords of configurations are their attributes; a checkpoint's fields are keywords too."""
    config = "tensorrt_llm.models.modeling_utils.PretrainedConfig"
    plugins = "tensorrt_llm.plugin.PluginConfig"
    names = {config: contract.raw["checkpoint"]["config_fields"], plugins: list(contract.raw["plugin_config_fields"])}
    for path, fields in names.items():
        for name in fields:
            contract.symbols.setdefault(f"{path}.{name}", Symbol(f"{path}.{name}", type="value"))
