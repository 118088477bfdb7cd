"""Sound files of every format that can be written here, and damage to them."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

DATA = Path(__file__).parent / "data" / "sound"
RATE, SAMPLES = 16_000, 6_400
HEADLESS, TWO_FILES = "RAW", "SD2"


def tone(hz=220.0, samples=SAMPLES, rate=RATE, loudness=0.3):
    return (loudness * np.sin(2 * np.pi * hz * np.arange(samples) / rate)).astype(np.float32)


def written(samples=None, kind="WAV", subtype=None, rate=RATE):
    made = io.BytesIO()
    soundfile.write(made, tone() if samples is None else samples, rate, format=kind, subtype=subtype)
    return made.getvalue()


@lru_cache(maxsize=1)
def every_format():
    """Content by format and subtype."""
    made = {}
    for kind in sorted(soundfile.available_formats()):
        for subtype in soundfile.available_subtypes(kind):
            try:
                if kind not in (HEADLESS, TWO_FILES):
                    made[kind, subtype] = written(kind=kind, subtype=subtype)
            except soundfile.LibsndfileError:  # it only reads this one
                continue
    return made


def share(samples, rate, hz):
    """How much of the energy is within 20 Hz of a frequency."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / rate) - hz) < 20
    return float(power[near].sum() / power.sum())


def patched(content, at, value):
    return content[:at] + value + content[at + len(value) :]


POLYNOMIAL = 0x04C11DB7


def checksum(page):
    """Of an Ogg page whose checksum is zero."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = value << 1 & 0xFFFFFFFF ^ (POLYNOMIAL if value & 1 << 31 else 0)
    return value


def sealed(page):
    """An Ogg page with its checksum."""
    return patched(page, 22, checksum(patched(page, 22, bytes(4))).to_bytes(4, "little"))


def flac_in_ogg(content, piece=4000):
    """FLAC as Ogg pages; packets are cut anywhere, as if they went on."""
    head, rest = content[:42], content[42:]
    bodies = [b"\x7fFLAC\1\0\0\1" + head, *(rest[at : at + piece] for at in range(0, len(rest), piece))]
    made = b""
    for number, body in enumerate(bodies):
        lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
        flags = (2 if number == 0 else 0) | (4 if number == len(bodies) - 1 else 0)
        front = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0 if number == 0 else SAMPLES, 7, number, 0, len(lacing))
        made += sealed(front + lacing + body)
    return made
