"""Strategies below the protocol: fields of the request message, bytes that are no message."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.endurance.case import Case, add_tensor, draft
from tests.endurance.strategies import FEW, INT64, say, small

WORDS = st.one_of(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), st.just("x" * 10_000))


@st.composite
def fields(draw: st.DrawFn) -> Case:
    """Model names, versions, ids, outputs and Triton's own parameters."""
    request = say(small(draft(), draw(FEW)))
    for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=3)):
        change(request, draw)
    return Case("fields", request.SerializeToString(), outputs=None)


def _model(request: Any, draw: st.DrawFn) -> None:
    request.model_name = draw(st.sampled_from(("unknown", "", "log_mel", "token2wav", "../x", "fun_audio_chat\x00")))


def _version(request: Any, draw: st.DrawFn) -> None:
    request.model_version = draw(st.sampled_from(("1", "2", "-1", "one", "9" * 30)))


def _identity(request: Any, draw: st.DrawFn) -> None:
    request.id = draw(WORDS)


def _outputs(request: Any, draw: st.DrawFn) -> None:
    names = ("text", "audio", "finish_reason", "stats", "speech", "", "text\x00")
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
        request.outputs.add().name = name


def _output_parameter(request: Any, draw: st.DrawFn) -> None:
    # Never a class of a BYTES output: Triton 2.51 divides by the zero bytes of its elements and dies; docs/soak.md.
    output = request.outputs.add(name="audio")
    name = draw(st.sampled_from(("classification", "shared_memory_region", "shared_memory_byte_size", "binary_data")))
    output.parameters[name].int64_param = draw(INT64)


def _region(request: Any, draw: st.DrawFn) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "nowhere"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = draw(INT64)


def _sequence(request: Any, draw: st.DrawFn) -> None:
    name = draw(st.sampled_from(("sequence_id", "sequence_start", "sequence_end", "priority", "timeout")))
    field = draw(st.sampled_from(("int64_param", "uint64_param", "string_param", "bool_param")))
    values: dict[str, Any] = {"string_param": "7", "bool_param": True, "int64_param": 7, "uint64_param": 7}
    setattr(request.parameters[name], field, values[field])


def _twice(request: Any, draw: st.DrawFn) -> None:
    add_tensor(request, "text", np.array([b"again"], np.object_), "BYTES")


_CHANGES = (_model, _version, _identity, _outputs, _output_parameter, _region, _sequence, _twice)


@st.composite
def garbage(draw: st.DrawFn) -> Case:
    """Bytes that are no request, and requests with bytes changed, cut off or put in."""
    if draw(st.integers(0, 3)) == 0:
        return Case("garbage", draw(st.binary(max_size=200)), outputs=None)
    whole = bytearray(say(small(draft(), draw(FEW))).SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole) - 1))
        kind = draw(st.sampled_from(("change", "cut", "put")))
        if kind == "change":
            whole[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del whole[at : at + draw(st.integers(1, 8))]
        else:
            whole[at:at] = draw(st.binary(min_size=1, max_size=8))
        if not whole:
            break
    return Case("garbage", bytes(whole), outputs=None)
