"""Sound files in and out."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import numpy as np
import soundfile

from .errors import ChatError
from .sound.decode import FORMATS, decode
from .sound.limits import MOST_FILE_BYTES, SoundError, check_rate

FIELD = "audio-path"


def read_audio(path: Path | str | os.PathLike[str], rate: int | None = None) -> tuple[np.ndarray, int]:
    """All of the sound of a file as mono samples in [-1, 1], and their rate.

    Files are known by their content, whatever their names. Joined and chained files are read to the last of them;
    sizes and counts that a recorder left wrong are mended where the sound is there.

    Args:
        rate: resample to this rate; None keeps the file's own.

    Raises:
        ChatError: the file is missing, empty or no sound file, or not all of it can be read.
    """
    path = Path(path)
    if rate is not None:
        try:
            check_rate(rate)
        except SoundError as error:
            raise ChatError("INVALID_ARG", "sampling-rate", str(error)) from None
    try:
        return decode(_content(path), rate, path)
    except SoundError as error:
        raise ChatError("INVALID_ARG", FIELD, f"{path} {error}") from error


def _content(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ChatError("NOT_FOUND", FIELD, f"{path} is not a file; give the path of a sound file")
        if found.st_size > MOST_FILE_BYTES:
            raise SoundError(f"has {found.st_size >> 20} MiB, more than {MOST_FILE_BYTES >> 20}; cut it, or send FLAC")
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except SoundError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name with a NUL is none
        raise ChatError("NOT_FOUND", FIELD, f"{path} is not a file; give the path of a sound file") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ChatError("INVALID_ARG", FIELD, f"{path} cannot be opened ({reason}); mend its path or rights") from None
    if not data:
        raise SoundError(f"is empty; it takes {FORMATS}")
    return data


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Writes mono samples in [-1, 1] as 16-bit PCM."""
    made = io.BytesIO()  # written by Python: of a full disk libsndfile does not say what is wrong
    soundfile.write(made, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_16", format="WAV")
    path.write_bytes(made.getvalue())
