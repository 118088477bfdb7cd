"""Decodes the bytes of a sound file to mono samples, all of them or none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .foreign import known
from .limits import (
    FILE_RATES,
    LONGEST_S,
    MOST_SAMPLE_BYTES,
    SoundError,
    check_length,
    check_rate,
    check_samples,
)
from .mix import to_mono
from .parts import Part, parts_of

BLOCK = 65_536  # samples of all channels that are decoded together
FORMATS = "WAV, FLAC, MP3, OGG, Opus and others of libsndfile; convert it (ffmpeg -i FILE new.wav)"
# What soundfile, numpy and the decoders raise for bytes that are no sound.
_FAILURES = (soundfile.SoundFileError, ValueError, TypeError, RuntimeError, OverflowError, OSError)


class _Bytes(io.BytesIO):
    """Ignores a seek before the first byte, which damaged files make the decoder try."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _Forward(soundfile.SoundFile):
    """Reads on as long as the decoder gives samples: headers may count too many, too few, or nothing at all."""

    def seekable(self) -> bool:
        return False


def decode(data: bytes, rate: int | None = None, name: Path | None = None) -> tuple[np.ndarray, int]:
    """Mono samples [samples] float32 and their rate.

    Args:
        data: content of a file, or of several that were joined.
        rate: resample to this; None keeps the rate of the first part.
        name: for the formats that are several files.

    Raises:
        SoundError: it cannot be read, or not all of it, or it is no question that can be sent.
    """
    try:
        return _joined(list(_sounds(data, name)), rate)
    except MemoryError:
        raise SoundError("does not fit into memory; cut it") from None


def _joined(sounds: list[tuple[np.ndarray, int]], rate: int | None) -> tuple[np.ndarray, int]:
    if not sounds:
        raise SoundError("holds no samples; record it again")
    wanted = sounds[0][1] if rate is None else rate
    check_rate(wanted)
    samples = np.concatenate([resampled(mono, own, wanted) for mono, own in sounds])
    check_length(samples.size, wanted)
    return samples, wanted


def resampled(mono: np.ndarray, own: int, rate: int) -> np.ndarray:
    """Samples at another rate, float32.

    Raises:
        SoundError: one of the rates is none that sound has.
    """
    if own == rate or not mono.size:
        return mono
    check_rate(rate)
    if own not in FILE_RATES:
        raise SoundError(f"says that it has {own} samples per second; it is damaged, or write it at another rate")
    made: np.ndarray = soxr.resample(mono, own, rate)
    return made.astype(np.float32)


def _sounds(data: bytes, name: Path | None) -> Iterator[tuple[np.ndarray, int]]:
    seconds = 0.0
    for part in parts_of(data):
        channels, rate = _read(part, seconds, name if part.content == data else None)
        seconds += len(channels) / rate
        yield to_mono(channels), rate


def _read(part: Part, before_s: float, name: Path | None) -> tuple[np.ndarray, int]:
    try:
        with _opened(part.content, name) as file:
            if file.samplerate < 1:
                raise SoundError("has no rate; it is damaged, or write it again")
            blocks = list(_blocks(file, before_s))
            channels, rate = file.channels, file.samplerate
    except SoundError:
        raise
    except _FAILURES as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        unread = f"cannot be read, or not to its end ({reason}); it takes {FORMATS}"
        raise SoundError(known(part.content) or unread) from error
    samples = np.concatenate(blocks) if blocks else np.zeros((0, channels), np.float32)
    if len(samples) < part.least:
        raise SoundError(f"stops after {len(samples) / rate:.1f} s though it goes on; write it again (ffmpeg)")
    check_samples(samples)
    return samples, rate


def _opened(content: bytes, name: Path | None) -> soundfile.SoundFile:
    try:
        return _Forward(_Bytes(content))
    except soundfile.LibsndfileError:
        if name is None or name.suffix.lower() != ".sd2":  # keeps its header in a second file
            raise
        return _Forward(str(name))


def _blocks(file: soundfile.SoundFile, before_s: float) -> Iterator[np.ndarray]:
    frames, size = 0, max(1, BLOCK // file.channels)
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        frames += len(block)
        if before_s + frames / file.samplerate > LONGEST_S:
            raise SoundError(f"lasts longer than {LONGEST_S:g} s; cut it into several questions")
        if frames * file.channels * block.itemsize > MOST_SAMPLE_BYTES:
            raise SoundError(f"has {file.channels} channels of {file.samplerate} samples per second, which do not fit "
                             "into memory; mix it to one channel")  # fmt: skip
        yield block.copy() if len(block) < size else block
