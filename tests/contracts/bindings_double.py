"""A double of ``tensorrt`` that is made of the real bindings' own signatures: every use is bound against them.

Nothing is computed. A call gives an object of the class that the signature names, an attribute that does not
exist, a wrong number, name or type of arguments is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from mmap import mmap
from pathlib import Path

STUB = Path(__file__).parent / "stub_library.c"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
PLAIN = {
    "int": int, "SupportsInt": int, "str": str, "bool": bool, "float": float, "tuple": tuple, "list": list,
    "buffer": (bytes, mmap), "Buffer": (bytes, mmap), "None": type(None),
}  # fmt: skip
ALIASES = {"IParserError": "ParserError"}  # the bindings write some classes as C++ does
VALUES = {"int": 1, "str": "a name", "bool": True, "float": 1.0, "None": None, "Dims": (1,)}


def read_api(folder: Path, work: Path) -> dict:
    """Loads the bindings of ``folder`` over stubs that are compiled in ``work``, and reads what they offer."""
    major = next(folder.glob("*.dist-info")).name.split("-")[1].split(".")[0]
    for name in LIBRARIES:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(work / f"lib{name}.so.{major}"), str(STUB)], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(work), "PYTHONPATH": str(folder)}
    command = [sys.executable, str(STUB.with_name("bindings_dump.py"))]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


class Object:
    """An object of a class of the bindings, a member of an enumeration where it has a ``value``."""

    def __init__(self, module: Module, kind: str, value: int | None = None, name: str = "") -> None:
        vars(self).update(_module=module, _kind=kind, _value=value)
        if value is not None:
            vars(self)["name"] = name

    def __getattr__(self, name: str) -> object:
        return self._module.member(self._kind, name)

    def __setattr__(self, name: str, value: object) -> None:
        found = self._module.classes[self._kind]["properties"][name]
        assert found["may_be_set"] and self._module.fits(value, found["type"]), f"{self._kind}.{name} = {value!r}"
        self._module.met.add(f"{self._kind}.{name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Object) and vars(self) == vars(other)

    def __int__(self) -> int:
        assert self._value is not None
        return self._value

    def __bytes__(self) -> bytes:
        assert self._kind == "IHostMemory", f"{self._kind} is no buffer"
        return b"content"


class Module:
    """Stands for ``tensorrt``.

    ``met``: names that were used. ``answers``: what calls give instead, by ``Class.method``.
    """

    def __init__(self, api: dict, answers: dict[str, object] | None = None) -> None:
        self.__version__, self.classes, self._values = api["version"], api["classes"], api["values"]
        self.answers, self.met = answers or {}, set()

    def __getattr__(self, name: str) -> object:
        if name in self._values:
            self.met.add(name)
            return Object(self, *self._values[name], name=name)
        if name not in self.classes:
            raise AttributeError(f"tensorrt {self.__version__} has no {name}")
        return Class(self, name)

    def member(self, kind: str, name: str) -> object:
        """A member of a class or of its object."""
        path, found = f"{kind}.{name}", self.classes[kind]
        self.met.add(path)
        if name in found["members"]:
            return Object(self, *found["members"][name], name=name)
        if name in found["properties"]:
            return self.answers.get(path, self._made(found["properties"][name]["type"]))
        if name not in found["methods"]:
            raise AttributeError(f"tensorrt {self.__version__} has no {path}")
        return lambda *args, **kwargs: self.call(kind, name, args, kwargs)

    def call(self, kind: str, name: str, args: tuple, kwargs: dict) -> object:
        """Binds a call against every overload."""
        path, overloads = f"{kind}.{name}", self.classes[kind]["methods"][name]
        fitting = [one for one in overloads if self._takes(one["arguments"], args, kwargs)]
        if not fitting:
            raise TypeError(f"{path} of tensorrt {self.__version__} takes {overloads}, not {args} {kwargs}")
        return self.answers.get(path, self._made(fitting[0]["returns"]))

    def _takes(self, arguments: list, args: tuple, kwargs: dict) -> bool:
        given = dict(zip((name for name, _, _ in arguments), args, strict=False))
        types = {name: written for name, written, _ in arguments}
        required = {name for name, _, must in arguments if must}
        return (
            len(args) <= len(arguments)
            and not given.keys() & kwargs.keys()
            and required <= (given | kwargs).keys() <= types.keys()
            and all(self.fits(value, types[name]) for name, value in (given | kwargs).items())
        )

    def fits(self, value: object, written: str) -> bool:
        """Whether a value may be given where the bindings write this type."""
        if isinstance(value, Object):
            return written in self.classes[value._kind]["bases"]
        if written == "Dims":
            return isinstance(value, tuple | list) and all(isinstance(size, int) for size in value)
        return isinstance(value, PLAIN.get(written, ()))

    def _made(self, written: str) -> object:
        inner = written.removeprefix("List[").removeprefix("list[").removesuffix("]")
        if inner != written:
            return [self._made(inner)]
        if written in VALUES:
            return VALUES[written]
        written = ALIASES.get(written, written)
        members = self.classes[written]["members"]
        name = next(iter(members), "")
        return Object(self, written, members[name][1] if members else None, name)


class Class:
    """A class of the bindings: called it makes an object, and enumerations have their members."""

    def __init__(self, module: Module, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: object, **kwargs: object) -> Object:
        self._module.met.add(self._name)
        self._module.call(self._name, "__init__", args, kwargs)
        return Object(self._module, self._name)

    def __getattr__(self, name: str) -> object:
        return self._module.member(self._name, name)
