"""What is sent: the caller's arguments as one `ModelInferRequest`. Checks what only the caller can mend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from client.audio_file import read_audio
from client.errors import ChatError
from runtime.contracts import FUN_AUDIO_CHAT, NUMPY_TYPES

DEFAULT_RATE = 16_000
FINAL_RESPONSE = "triton_final_response"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
INT16_SCALE = 32768.0
# Triton keeps the request parameter `priority` to itself, and reads `timeout`, in microseconds, as its own.
WIRE_NAMES = {"priority": "urgency"}
TIMEOUT, US_PER_S = "timeout", 1_000_000
# Arguments of `stream`: no request parameter can have their names.
RESERVED = frozenset(("self", "audio", "sample_rate", "text", "messages", "outputs", "timeout"))
INT64 = range(-(2**63), 2**63)

Audio = np.ndarray | Sequence[np.ndarray] | Path | str | None
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
        audio: a clip, or the clips of a conversation; float in [-1, 1] or int16, mono; or the path of a
            sound file.
        sample_rate: of all clips; a file's rate is its own.
        messages: chat messages, or their JSON text.
        outputs: names of the outputs to send back; None asks for all.
        parameters: request parameters; those that are None are left out.

    Raises:
        ChatError: an argument cannot be sent.
    """
    request = service_pb2.ModelInferRequest(model_name=FUN_AUDIO_CHAT.name)
    if isinstance(audio, str | Path):
        audio, sample_rate = read_audio(Path(audio))
    clips = _clips(audio)
    if clips:
        _add(request, "audio", np.concatenate(clips))
        _add(request, "audio_lengths", np.array([clip.size for clip in clips], np.int32))
        parameters = {"sample_rate": sample_rate, **parameters}
    if text is not None:
        _add(request, "text", _bytes("text", text))
    if messages is not None:
        _add(request, "messages", _bytes("messages", messages if isinstance(messages, str) else _document(messages)))
    for name in outputs or ():
        if name not in _OUTPUTS:
            raise _wrong("outputs", f"{name!r} is none of {', '.join(_OUTPUTS)}")
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


def _clips(audio: np.ndarray | Sequence[np.ndarray] | None) -> list[np.ndarray]:
    if audio is None:
        return []
    return [_clip(np.asarray(clip)) for clip in ([audio] if isinstance(audio, np.ndarray) else audio)]


def _clip(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1:
        raise _wrong("audio", f"has shape {samples.shape}; mix it to one channel, [samples]")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(INT16_SCALE)
    if not np.issubdtype(samples.dtype, np.floating):
        raise _wrong("audio", f"has type {samples.dtype}; give float samples in [-1, 1] or int16")
    return samples.astype(np.float32)


def _document(messages: Sequence[Mapping[str, Any]]) -> str:
    try:
        return json.dumps(list(messages), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _wrong("messages", f"cannot be written as JSON ({error}); give a list of chat messages") from None


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


def _set_parameter(slot: Any, name: str, value: Scalar) -> None:
    if isinstance(value, bool | np.bool_):
        slot.bool_param = bool(value)
    elif isinstance(value, int | np.integer):
        if int(value) not in INT64:
            raise _wrong(name, f"is {str(value)[:40]}, which does not fit 64 bits; give a smaller number")
        slot.int64_param = int(value)
    elif isinstance(value, float | np.floating):
        slot.string_param = repr(float(value))  # not every server passes doubles on; ours reads numbers in strings
    elif isinstance(value, str):
        if "\x00" in value:
            raise _wrong(name, "holds a NUL character, at which Triton cuts a parameter; send it in messages")
        _utf8(name, value)
        slot.string_param = value
    else:
        raise _wrong(name, f"has type {type(value).__name__}; give a number, a boolean or a string")


def _wrong(field: str, message: str) -> ChatError:
    return ChatError("INVALID_ARG", field, message)
