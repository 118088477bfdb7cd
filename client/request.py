"""Builds one `ModelInferRequest` from the caller's arguments and refuses those that cannot be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from .audio_file import read_audio
from .errors import ChatError
from .messages import document
from .numbers import finite, scalar, whole
from .protocol.tensors import FUN_AUDIO_CHAT, NUMPY_TYPES
from .sound.limits import SoundError
from .sound.samples import Clip, clips_of

DEFAULT_RATE = 16_000
FINAL_RESPONSE = "triton_final_response"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
# Triton keeps the request parameter `priority` to itself, and reads `timeout`, in microseconds, as its own.
WIRE_NAMES = {"priority": "urgency"}
TIMEOUT, US_PER_S = "timeout", 1_000_000
# Arguments of `stream`: no request parameter can have their names.
RESERVED = frozenset(("self", "audio", "sample_rate", "text", "messages", "outputs", "timeout"))
MOST_BYTES = 2**31 - 2**20  # of sound: a message of gRPC ends at 2 GiB
EXACT = 2**53  # doubles hold all whole numbers up to it

# Also arrays of other libraries, whatever numpy can take for one.
Audio = np.ndarray | Sequence[Any] | Mapping[str, Any] | Path | str | bytes | BinaryIO | None
Scalar = bool | int | float | str
_DTYPES = {spec.name: spec.dtype for spec in FUN_AUDIO_CHAT.inputs}
_OUTPUTS = tuple(spec.name for spec in FUN_AUDIO_CHAT.outputs)


def make_request(
    audio: Audio,
    sample_rate: int,
    text: str | None,
    messages: Sequence[Mapping[str, Any]] | str | None,
    outputs: Sequence[str] | None,
    parameters: Mapping[str, Scalar | None],
) -> Any:
    """One request of the public model.

    Args:
        audio: a clip, or the clips of a conversation in order.
        sample_rate: of arrays that bring none.
        messages: chat messages, or their JSON text.
        outputs: names of the outputs to send back; None asks for all.
        parameters: request parameters; those that are None are left out.

    Raises:
        ChatError: an argument cannot be sent.
    """
    request = service_pb2.ModelInferRequest(model_name=FUN_AUDIO_CHAT.name)
    clips = _clips(audio, sample_rate)
    if clips:
        _add(request, "audio", np.concatenate([clip.samples for clip in clips]))
        _add(request, "audio_lengths", np.array([clip.samples.size for clip in clips], np.int32))
        parameters = {"sample_rate": clips[0].rate, **parameters}
    if text is not None:
        _add(request, "text", _bytes("text", text))
    if messages is not None:
        _add(request, "messages", _bytes("messages", document(messages)))
    for name in _output_names(outputs):
        request.outputs.add().name = name
    for name, value in parameters.items():
        if value is not None:
            _utf8(name, name)
            _set_parameter(request.parameters[WIRE_NAMES.get(name, name)], name, value)
    request.parameters[EMPTY_FINAL_RESPONSE].bool_param = True
    return request


def set_deadline(request: Any, left_s: float | None) -> None:
    """Tells the server how long the client waits for the whole answer, so that it need not queue in vain.

    gRPC's own deadline ends the call; Triton does not show it to the model.
    """
    if left_s is not None:
        request.parameters[TIMEOUT].int64_param = max(1, int(left_s * US_PER_S))


def _clips(audio: Any, sample_rate: Any) -> list[Clip]:
    """Raises ChatError for what is no sound, whichever library found that out."""
    if audio is None:
        return []
    try:
        clips = clips_of(audio, whole("sample_rate", sample_rate), read_audio)
    except SoundError as error:
        raise _wrong("audio", str(error)) from error
    except MemoryError:
        raise _wrong("audio", "does not fit into memory; send less at once") from None
    if sum(clip.samples.nbytes for clip in clips) > MOST_BYTES:
        raise _wrong("audio", f"has more than {MOST_BYTES >> 20} MiB in all clips; send fewer, or at a lower rate")
    return clips


def _output_names(outputs: Any) -> list[str]:
    if outputs is None:
        return []
    if isinstance(outputs, str | Mapping) or not isinstance(outputs, Iterable):
        raise _wrong("outputs", f"is {outputs!r:.40}; give a list of names, of {', '.join(_OUTPUTS)}")
    names = list(outputs)
    for name in names:
        if not isinstance(name, str) or name not in _OUTPUTS:
            raise _wrong("outputs", f"{name!r:.40} is none of {', '.join(_OUTPUTS)}")
    return names


def _bytes(field: str, text: str) -> np.ndarray:
    if not isinstance(text, str):
        raise _wrong(field, f"has type {type(text).__name__}; give a string")
    return np.array([_utf8(field, text)], dtype=np.object_)


def _utf8(field: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise _wrong(field, f"holds {half} at {error.start}, which is no character; leave it out") from None


def _add(request: Any, name: str, array: np.ndarray) -> None:
    dtype = _DTYPES[name]
    tensor = request.inputs.add(name=name, datatype=dtype)
    tensor.shape.extend(array.shape)
    if dtype == "BYTES":
        request.raw_input_contents.append(serialize_byte_tensor(array).item())
    else:
        request.raw_input_contents.append(np.ascontiguousarray(array, NUMPY_TYPES[dtype]).tobytes())


def _set_parameter(slot: Any, name: str, given: Any) -> None:
    value = finite(name, scalar(given))
    if isinstance(value, bool):
        slot.bool_param = value
    elif isinstance(value, int):
        slot.int64_param = value
    elif isinstance(value, float):
        # Not every server passes doubles on; ours reads numbers in strings, and 3.0 as a whole number.
        slot.string_param = str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)
    elif isinstance(value, str):
        if "\x00" in value:
            raise _wrong(name, "holds a NUL character, at which Triton cuts a parameter; send it in messages")
        _utf8(name, value)
        slot.string_param = value
    else:
        raise _wrong(name, f"has type {type(given).__name__}; give a number, a boolean or a string")


def _wrong(field: str, message: str) -> ChatError:
    return ChatError("INVALID_ARG", field, message)
