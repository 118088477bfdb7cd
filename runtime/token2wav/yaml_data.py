"""A YAML file with object tags, read as data: nothing in it is ever executed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from runtime.checkpoint.files import AGAIN, one_line, read_text, reason, shown
from runtime.errors import BuildError

MOST = 1e12  # of any number; larger ones are slips


class Document:
    """A YAML document whose object tags are inert: ``!new:`` and the like give their plain arguments."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.name, self.values = name, values

    @classmethod
    def read(cls, path: Path) -> Document:
        """Raises BuildError when there is no such file or it is no mapping."""
        text = read_text(path, "the downloaded CosyVoice3 directory")
        try:
            values = yaml.load(text, Loader=_InertLoader)
        except BuildError:
            raise
        except Exception as error:  # besides its own errors the library lets those of its constructors out
            raise BuildError(path.name, f"is not YAML ({_reason(error)})", AGAIN) from None
        if not isinstance(values, dict):
            raise BuildError(path.name, "is not a mapping", AGAIN)
        return cls(path.name, values)

    def get(self, path: str) -> Any:
        """The value at a dotted path, references resolved."""
        value: Any = self.values
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise BuildError(f"{self.name}: {path}", "is missing", "check the checkpoint's version")
            value = self._resolve(path, value[key])
        return value

    def integer(self, path: str) -> int:
        """A whole number at a dotted path."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BuildError(f"{self.name}: {path}", f"is {shown(value)}", "a whole number is needed")
        return value

    def number(self, path: str) -> float:
        """A number at a dotted path."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST:
            raise BuildError(f"{self.name}: {path}", f"is {shown(value)}", "a number is needed")
        return float(value)

    def integers(self, path: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.get(path)
        if not _whole_numbers(value):
            raise BuildError(f"{self.name}: {path}", f"is {shown(value)}", "a list of whole numbers is needed")
        return tuple(value)

    def integer_lists(self, path: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of whole numbers."""
        value = self.get(path)
        if not isinstance(value, list) or not all(_whole_numbers(row) for row in value):
            raise BuildError(f"{self.name}: {path}", f"is {shown(value)}", "lists of whole numbers are needed")
        return tuple(tuple(row) for row in value)

    def _resolve(self, path: str, value: Any) -> Any:
        if not isinstance(value, Reference):
            return value
        try:
            return value.evaluate(self.get)
        except BuildError:
            raise
        except Exception:  # whatever arithmetic over data of any kind may raise
            raise BuildError(
                f"{self.name}: {path}", f"is {shown(value.text)}", "only arithmetic is understood"
            ) from None


class Reference:
    """``!ref``: arithmetic over ``<names>`` of the document."""

    _OPERATORS: ClassVar[dict[type, Any]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
    }

    def __init__(self, text: str) -> None:
        self.text = text

    def evaluate(self, get: Callable[[str], Any]) -> Any:
        """The value; names are looked up with ``get``."""
        names = re.findall(r"<([\w.]+)>", self.text)
        expression = re.sub(r"<[\w.]+>", "_", self.text)
        return self._value(ast.parse(expression, mode="eval").body, iter([get(name) for name in names]))

    def _value(self, node: ast.expr, names: Iterator[Any]) -> Any:
        if isinstance(node, ast.Name) and node.id == "_":
            return next(names)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.BinOp):
            left = self._value(node.left, names)
            return self._OPERATORS[type(node.op)](left, self._value(node.right, names))
        raise ValueError(self.text)


class _InertLoader(yaml.SafeLoader):
    """Knows no tag that could make an object: whatever it does not know gives the plain data below it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class, which silently takes the last of two equal keys."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{shown(twice)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _reason(error: Exception) -> str:
    """A problem and its line; the library spreads them over several."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return reason(error)
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    return one_line(f"{error.problem}{line}")


def _inert(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


def _reference(loader: yaml.SafeLoader, node: yaml.Node) -> Reference:
    return Reference(str(_inert(loader, node)))


_InertLoader.add_constructor(None, _inert)
_InertLoader.add_constructor("!ref", _reference)


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
