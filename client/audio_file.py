"""Sound files in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from client.errors import ChatError


def read_audio(path: Path | str, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono samples in [-1, 1] and their rate from a WAV, FLAC, MP3 or OGG file.

    Args:
        rate: resample to this rate; None keeps the file's own.

    Raises:
        ChatError: the file is missing, empty or no sound file.
    """
    path = Path(path)
    if not path.is_file():
        raise ChatError("NOT_FOUND", "audio-path", f"{path} is not a file")
    try:
        samples, own = soundfile.read(path, dtype="float32", always_2d=True)  # [samples, channels]
    except (soundfile.LibsndfileError, OSError) as error:
        raise ChatError(
            "INVALID_ARG", "audio-path", f"{path} cannot be read ({error}); use WAV, FLAC, MP3 or OGG"
        ) from error
    if not len(samples):
        raise ChatError("INVALID_ARG", "audio-path", f"{path} holds no samples")
    mono = samples.mean(axis=1)
    if rate is None or rate == own:
        return mono, own
    return soxr.resample(mono, own, rate).astype(np.float32), rate


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Writes mono samples in [-1, 1] as 16-bit PCM."""
    soundfile.write(path, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_16", format="WAV")
