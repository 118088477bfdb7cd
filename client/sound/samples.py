"""Converts the sound of a program, of any library, to mono samples."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..numbers import whole
from .decode import decode, resampled
from .limits import MOST_FILE_BYTES, SoundError, check_length, check_rate, check_samples
from .mix import to_mono

MOST_CHANNELS = 32
# Integers by their type: what full scale is, and where zero is.
_SCALES = {"int8": (2.0**7, 0.0), "uint8": (2.0**7, 2.0**7), "int16": (2.0**15, 0.0), "int32": (2.0**31, 0.0)}
NARROW = 2**15  # wider integers that are all within it were 16 bits
WANTED = "give float samples in [-1, 1] or int16"
FORMS = "give an array, a path, or the bytes of a sound file"
# How data sets and pipelines hold sound.
ARRAY_KEYS, RATE_KEYS = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")


@dataclass(frozen=True, slots=True)
class Clip:
    """Mono samples [samples] float32 at a rate."""

    samples: np.ndarray
    rate: int


def clips_of(audio: Any, sample_rate: int | None, read: Any) -> list[Clip]:
    """The clips in an argument: one, or a sequence of them, all at one rate.

    Args:
        sample_rate: of arrays that do not bring their own.
        read: reads a file: path to samples and rate.

    Raises:
        SoundError: it is no sound, or not clear which; the message says what it is.
    """
    if audio is None:
        return []
    found = [_clip(item, sample_rate, read) for item in _items(audio)]
    rate = max((clip.rate for clip in found), default=0)
    return [Clip(resampled(clip.samples, clip.rate, rate), rate) for clip in found]


def _items(audio: Any) -> list[Any]:
    """One clip, or the clips of a sequence."""
    if isinstance(audio, np.ndarray) and audio.dtype == object and audio.ndim == 1 and any(map(_is_long, audio)):
        return list(audio)
    if not isinstance(audio, list | tuple) and (not _is_plain_sequence(audio)):
        return [audio]
    if _rated(audio) or (len(audio) and all(_is_number(item) for item in audio)):
        return [audio]
    if len(audio) and all(_is_row(item) for item in audio):
        return [audio]  # rows of one array, as nested lists
    return list(audio)


def _is_plain_sequence(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes | bytearray | memoryview)
        and not hasattr(value, "__array__")
        and not hasattr(value, "__buffer__")
        and not hasattr(value, "typecode")
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.generic) or getattr(value, "shape", None) == ()


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(len(value)) and all(isinstance(item, int | float) for item in value)


def _is_long(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def _rated(audio: Any) -> tuple[Any, Any] | None:
    """Samples and rate of a pair, in either order, as other libraries give them."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        return None
    one, two = audio
    if _is_number(two) and not _is_number(one) and _is_long(one):
        return one, two
    if _is_number(one) and not _is_number(two) and _is_long(two):
        return two, one
    return None


def _clip(value: Any, sample_rate: int | None, read: Any) -> Clip:
    pair = _rated(value)
    if pair is None and isinstance(value, Mapping):
        pair = _of_mapping(value)
    if pair is not None:
        value, rate = pair[0], whole("sample_rate", pair[1])
        return _array_clip(value, rate)
    if isinstance(value, str | Path | os.PathLike):
        return Clip(*read(value))
    if isinstance(value, bytes | bytearray):
        return Clip(*_content(bytes(value)))
    if isinstance(value, memoryview) and value.format in ("B", "b", "c"):
        return Clip(*_content(value.tobytes()))
    if hasattr(value, "read") and not hasattr(value, "__array__"):
        return Clip(*_content(_read(value)))
    return _array_clip(value, sample_rate)


def _of_mapping(value: Mapping[str, Any]) -> tuple[Any, Any]:
    array, rate = (next((value[key] for key in keys if key in value), None) for keys in (ARRAY_KEYS, RATE_KEYS))
    if array is None or rate is None:
        raise SoundError(f"is a mapping without {ARRAY_KEYS[0]} and {RATE_KEYS[0]}; {FORMS}")
    return array, rate


def _read(file: Any) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise SoundError("is a file of text; open it as binary ('rb')")
    try:
        data = file.read(MOST_FILE_BYTES + 1)
        if isinstance(data, bytes) and not data and hasattr(file, "seek"):  # it was just written
            file.seek(0)
            data = file.read(MOST_FILE_BYTES + 1)
    except Exception as error:  # of whatever kind of file it is: closed, open for writing, damaged
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SoundError(f"has type {type(file).__name__} and cannot be read ({reason}); {FORMS}") from error
    if not isinstance(data, bytes | bytearray):
        raise SoundError(f"has type {type(file).__name__}, which gives no bytes; {FORMS}")
    return bytes(data)


def _content(data: bytes) -> tuple[np.ndarray, int]:
    if len(data) > MOST_FILE_BYTES:
        raise SoundError(f"has more than {MOST_FILE_BYTES >> 20} MiB; cut it, or send FLAC")
    try:
        return decode(data)
    except SoundError as error:
        remedy = "give samples without a header as np.frombuffer(data, np.int16)"
        raise SoundError(f"is bytes; what they hold {error}; {remedy}") from None


def _array_clip(value: Any, rate: int | None) -> Clip:
    if rate is None:
        raise SoundError("has no rate; give sample_rate")
    check_rate(rate)
    channels = _two_axes(_floats(array_of(value)))
    check_samples(channels)
    check_length(len(channels), rate)
    return Clip(to_mono(channels), rate)


def array_of(value: Any) -> np.ndarray:
    """The numpy array in an array of any library.

    Raises:
        SoundError: there is none.
    """
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise SoundError("has masked samples; fill or drop them")
        return np.asarray(value.data)
    if isinstance(value, set | frozenset | str) or (hasattr(value, "__next__") and not hasattr(value, "__array__")):
        raise SoundError(f"has type {type(value).__name__}; {FORMS}")
    try:
        made = _converted(value)
    except Exception as error:  # of whatever library the array comes from
        message = f"has type {type(value).__name__}, which is no array ({' '.join(str(error).split())[:200]})"
        raise SoundError(f"{message}; {FORMS}") from error
    if made.ndim == 0:
        raise SoundError(f"has type {type(value).__name__}, which holds no samples; {FORMS}")
    return made


def _converted(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # torch: apart from its gradients and its device; numpy knows no bfloat16
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value.resolve_conj().resolve_neg()
    elif hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):
        value = value.get()
    elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _floats(array: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as far as their type tells."""
    name = array.dtype.name
    if not array.size:
        raise SoundError("holds no samples; record it again")
    if array.dtype == object or name.startswith("bfloat"):
        return _of_objects(array)
    if name in _SCALES:
        scale, zero = _SCALES[name]
        if name == "int32" and 0 < max(-int(array.min()), int(array.max())) <= NARROW:
            raise SoundError("has type int32 but no sample beyond 16 bits; give int16, or shift it to 32 bits")
        return ((array.astype(np.float64) - zero) / scale).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise SoundError(f"has type {name}; {WANTED}")
    with np.errstate(over="ignore", invalid="ignore"):  # too much for float32 is found next, as infinite
        return array.astype(np.float32)


def _of_objects(array: np.ndarray) -> np.ndarray:
    if array.dtype == object and not all(isinstance(item, float | np.floating) for item in array.flat):
        raise SoundError(f"has type object; {WANTED}")
    return array.astype(np.float32)


def _two_axes(array: np.ndarray) -> np.ndarray:
    """[samples, channels]."""
    shape = tuple(size for size in array.shape if size != 1) or (1,)
    found = array.reshape(shape)
    if found.ndim == 1:
        return found[:, None]
    small = [axis for axis, size in enumerate(shape) if size <= MOST_CHANNELS]
    if found.ndim != 2 or len(small) != 1:
        raise SoundError(f"has shape {array.shape}, of which it is not clear what the channels are; mix it to one "
                         "channel, [samples]")  # fmt: skip
    return found.T if small[0] == 0 else found
