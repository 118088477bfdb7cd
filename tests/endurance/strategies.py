"""Hypothesis strategies over the whole protocol of the public model: right requests, wrong ones, nonsense."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st

from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime.requests.parse import PARAMETERS
from tests.endurance.case import Case, Expect, add_tensor, draft, set_parameter
from tests.endurance.texts import spelled, texts
from tests.endurance.traffic import SUBSETS

NAMES = tuple(spec.name for spec in FUN_AUDIO_CHAT.inputs)
DTYPES = ("FP32", "INT32", "BYTES", "INT64", "FP64", "FP16", "BF16", "BOOL", "UINT8", "INT8", "UINT64", "", "fp32", "X")
FEW = st.integers(1, 3)  # max_tokens: cases are many, answers are not what is tested
INT64 = st.integers(-(2**63), 2**63 - 1)
DIMS = st.one_of(st.integers(0, 5), st.sampled_from((-1, -(2**63), 2**31, 2**40, 2**62, 2**63 - 1)), INT64)
# Values that no field takes, whatever else is sent: many tokens never fit.
HUGE_TOKENS = st.sampled_from((4097, 10**6, 10**6 + 1, 2**31, 2**63 - 1))


def small(request: Any, tokens: int, mode: str = "s2t") -> Any:
    """Bounds the answer."""
    set_parameter(request, "max_tokens", tokens)
    set_parameter(request, "mode", mode)
    return request


def say(request: Any, text: str = "hi") -> Any:
    """Adds a text input."""
    add_tensor(request, "text", np.array([text.encode("utf-8", "surrogatepass")], np.object_), "BYTES")
    return request


@st.composite
def fair(draw: st.DrawFn) -> Case:
    """A right request; it must be answered."""
    tokens, outputs = draw(st.integers(1, 12)), draw(st.sampled_from(SUBSETS))
    request = small(draft(outputs), tokens, draw(st.sampled_from(("s2s", "s2t"))))
    if draw(st.booleans()):
        clip = np.sin(np.arange(draw(st.integers(400, 16_000))) / 7).astype(np.float32)
        add_tensor(request, "audio", clip, "FP32")
    else:
        say(request, draw(st.sampled_from(("hello", "你好", "x" * 300))))
    set_parameter(request, "seed", draw(st.integers(0, 2**63 - 1)))
    return Case("fair", request.SerializeToString(), Expect.ANSWER, outputs, tokens)


@st.composite
def tensor(draw: st.DrawFn) -> tuple[str, str, list[int], bytes | None]:
    """Name, type, shape and content of a tensor that need not fit together."""
    name = draw(st.sampled_from((*NAMES, *NAMES, "speech", "", "AUDIO", "text\x00")))
    shape = draw(st.lists(DIMS, max_size=4))
    content = draw(st.one_of(st.binary(max_size=64), st.none()))
    if draw(st.booleans()):  # content of the right size for 4-byte elements
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        content = bytes(draw(st.integers(0, 255)) for _ in range(4)) * int(np.prod(shape))
    return name, draw(st.sampled_from(DTYPES)), shape, content


def survivable(made: tuple[str, str, list[int], bytes | None]) -> bool:
    """Whether Triton 2.51 itself lives through a tensor: its count of bytes is kept in 64 bits and wraps.

    A shape of 2**62 four-byte elements counts as no bytes, passes its check, and numpy then ends the stub of
    the model before any code of ours runs; docs/soak.md.
    """
    count = math.prod(made[2])
    return abs(count) < 2**60


@st.composite
def tensors(draw: st.DrawFn) -> Case:
    """Inputs of any name, type, rank, size and number; contents that fit or do not."""
    request = small(draft(), draw(FEW))
    for name, dtype, shape, content in draw(st.lists(tensor().filter(survivable), min_size=1, max_size=4)):
        request.inputs.add(name=name, datatype=dtype).shape.extend(shape)
        if content is not None:
            request.raw_input_contents.append(content)
    if draw(st.booleans()):
        say(request)
    return Case("tensors", request.SerializeToString(), outputs=None)


@st.composite
def contents(draw: st.DrawFn) -> Case:
    """Raw contents beside typed ones, too many or too few of them."""
    request = say(small(draft(), draw(FEW)))
    if draw(st.booleans()):
        del request.raw_input_contents[:]
    values = request.inputs[0].contents
    field = draw(st.sampled_from(("bytes_contents", "fp32_contents", "int_contents", "bool_contents")))
    filler = {"bytes_contents": b"hi", "fp32_contents": 1.0, "int_contents": 1, "bool_contents": True}[field]
    getattr(values, field).extend([filler] * draw(st.integers(0, 3)))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=12), max_size=3)))
    return Case("contents", request.SerializeToString(), outputs=None)


@st.composite
def strings(draw: st.DrawFn) -> Case:
    """BYTES tensors whose length prefixes lie, or that hold another number of strings than the shape says."""
    request = small(draft(), draw(FEW))
    name = draw(st.sampled_from(("text", "messages")))
    word = draw(st.binary(max_size=20))
    lengths = st.sampled_from((0, len(word), len(word) + 1, max(0, len(word) - 1), 2**31 - 1, 2**31, 2**32 - 1))
    items = draw(st.lists(lengths, max_size=3))
    raw = b"".join(struct.pack("<I", length) + word for length in items) + draw(st.binary(max_size=5))
    request.inputs.add(name=name, datatype="BYTES").shape.extend(
        draw(st.sampled_from(([1], [len(items)], [2], [1, 1], [])))
    )
    request.raw_input_contents.append(raw)
    return Case("strings", request.SerializeToString(), outputs=None)


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 0),
    st.integers(2**63, 2**64 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    st.sampled_from(
        ("nan", "inf", "-1", "1e400", "0x10", "1_0", " 5 ", "٣", "true", "", "9" * 5000, "s2s", "x" * 5000)
    ),
)
NEAR = {
    "mode": st.sampled_from(("s2s", "s2t", "S2S", "t2s", "")),
    "sample_rate": st.sampled_from((4000, 3999, 192_000, 192_001, 16_000, 8_000, 0, -1, 44_100.0, 44_100.5)),
    "max_tokens": st.one_of(FEW, HUGE_TOKENS, st.sampled_from((0, -1, 2.0, 2.5, "3", "3.0", True))),
    "seed": st.one_of(INT64, st.sampled_from((2**63, 2**64 - 1, 1.5, "7", str(2**63)))),
    "temperature": st.sampled_from((0.01, 0.009, 10.0, 10.1, 1, "0.5", 1e-300)),
    "top_p": st.sampled_from((0.0, 1e-9, 1.0, 1.0001, 1, "0.9")),
    "top_k": st.sampled_from((0, 1, 10**6, 10**6 + 1, -1, 2.0)),
    "repetition_penalty": st.sampled_from((0.1, 0.09, 10.0, 11, "1.2")),
    "banned_pairs": st.sampled_from(("5:6", "5:6,7:8", "5", "5:999999999", "1:2," * 9)),
    "hops": st.sampled_from(("15", "5,100", "4", "101", "", ",", "15,", "5," * 16 + "5", "1e1", "５", "-5")),
    "voice": st.sampled_from(("unknown", "", "\x00", "x" * 9999, "中文女\x00")),
}
UNKNOWN = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=100),
    st.sampled_from(
        ("temprature", "a: b", ":", "\n", "triton_x", "x-y", "headers", "priority", "timeout", "binary_data")
    ),
)


@st.composite
def parameters(draw: st.DrawFn) -> Case:
    """Parameters of any name, type and value."""
    request = say(small(draft(), draw(FEW)))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.one_of(st.sampled_from(sorted(PARAMETERS)), UNKNOWN))
        set_parameter(request, name, draw(st.one_of(NEAR.get(name, VALUES), VALUES)))
    return Case("parameters", request.SerializeToString(), outputs=None)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
ROLE = st.sampled_from(("user", "assistant", "system", "tool", "robot", "", "\ud800", None, 1, ["user"], {"a": 1}))
PART = st.one_of(
    st.just({"type": "audio"}),
    st.builds(lambda text: {"type": "text", "text": text}, spelled()),
    st.builds(lambda text, key: {"type": "text", "text": text, key: 1}, texts(), texts()),
    JSON,
)
TURN = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content}, ROLE, st.one_of(spelled(), st.lists(PART, max_size=3))
    ),
    st.builds(
        lambda key: {"role": "user", "content": "hi", key: 0}, st.one_of(texts(), st.just("\ud800"), st.just("a: b"))
    ),
    JSON,
)
DOCUMENTS = st.one_of(
    st.builds(json.dumps, st.lists(TURN, max_size=4)),
    st.builds(lambda turns: json.dumps(turns, ensure_ascii=False), st.lists(TURN, max_size=3)),
    st.builds(json.dumps, JSON),
    st.builds(
        lambda opening, depth: opening * depth, st.sampled_from(("[", '{"a":', '[{"role":')), st.integers(1, 100_000)
    ),
    st.builds(lambda count: json.dumps([{"role": "user", "content": "hi"}] * count), st.integers(1, 600)),
    st.sampled_from(
        ("", "null", "NaN", "[NaN]", "[1e999]", "\ufeff[]", "[" + "9" * 5000 + "]", '"' + "x" * 10**6 + '"')
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> Case:
    """JSON of any depth and size in ``messages``, with and without sound."""
    request = small(draft(), draw(FEW))
    document = draw(DOCUMENTS).encode("utf-8", "surrogatepass")
    add_tensor(request, "messages", np.array([document], np.object_), "BYTES")
    if draw(st.booleans()):
        add_tensor(request, "audio", np.zeros(draw(st.integers(1, 900)), np.float32), "FP32")
    return Case("histories", request.SerializeToString(), outputs=None)


@st.composite
def conflicts(draw: st.DrawFn) -> Case:
    """Fields that exclude each other, or nothing at all; always an error."""
    request = small(draft(), draw(FEW))
    document = np.array([b'[{"role": "user", "content": "hi"}]'], np.object_)
    kind = draw(st.sampled_from(("nothing", "text", "system", "hops", "lengths", "clip")))
    if kind in ("text", "system", "clip"):
        add_tensor(request, "messages", document, "BYTES")
    if kind == "text" or kind == "hops":
        say(request)
    if kind == "system":
        set_parameter(request, "system", draw(texts()).encode("utf-8", "replace").decode())
    if kind == "hops":
        set_parameter(request, "hops", "15")
        set_parameter(request, "earliest", True)
    if kind == "lengths":
        say(request)
        add_tensor(request, "audio_lengths", np.array([draw(st.integers(-5, 5))], np.int32), "INT32")
    if kind == "clip":
        add_tensor(request, "audio", np.zeros(400, np.float32), "FP32")
    return Case("conflicts", request.SerializeToString(), Expect.ERROR, None)
