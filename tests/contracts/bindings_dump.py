"""What the real bindings offer, as JSON: run in a process of its own, with stubs in the place of their libraries.

Signatures come from the docstrings that the bindings' generator writes.
"""

import inspect
import json
import re

import tensorrt_bindings as trt

TEXTS = (trt.__name__ + ".tensorrt.", "typing.", "typing_extensions.", "nvonnxparser::")
SIGNATURE = re.compile(r"^(?:\d+\. )?\w*\((?P<arguments>.*)\) -> (?P<returns>.+)$")


def plain(text):
    for prefix in TEXTS:
        text = text.replace(prefix, "")
    return text.strip()


def split(text):
    """At commas outside brackets."""
    return [part for part in re.split(r",\s*(?![^\[\](<]*[\])>])", text) if part]


def argument(text):
    """Name, type, and whether it must be given."""
    name, _, rest = text.partition(": ")
    written, _, default = rest.partition(" = ")
    return [name, plain(written), not default]


def signatures(member):
    """Without ``self``."""
    found = (SIGNATURE.match(line) for line in (member.__doc__ or "").splitlines())
    return [
        {"arguments": [argument(a) for a in split(m["arguments"])[1:]], "returns": plain(m["returns"])}
        for m in found
        if m and m["arguments"].startswith(("self", "arg0"))
    ]


def property_type(member):
    found = SIGNATURE.match(((member.fget.__doc__ if member.fget else "") or "").strip())
    return plain(found["returns"]) if found else ""


def member_of(value):
    """Class and number of a member of an enumeration, or None."""
    return [type(value).__qualname__, int(value)] if hasattr(type(value), "__members__") else None


def described(kind):
    made = {"bases": [base.__qualname__ for base in kind.__mro__], "methods": {}, "properties": {}, "members": {}}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if found := member_of(getattr(kind, name)):
            made["members"][name] = found
        elif isinstance(member, property):
            made["properties"][name] = {"type": property_type(member), "may_be_set": member.fset is not None}
        elif name == "__init__" or (callable(getattr(kind, name)) and not name.startswith("_")):
            made["methods"][name] = signatures(getattr(kind, name))
    return made


top = [kind for kind in vars(trt).values() if inspect.isclass(kind)]
inner = [part for kind in top for part in vars(kind).values() if inspect.isclass(part)]
classes = {kind.__qualname__: described(kind) for kind in [*top, *inner]}
values = {name: found for name, value in vars(trt).items() if (found := member_of(value))}
print(json.dumps({"version": trt.__version__, "classes": classes, "values": values}))
