"""Finds where files begin within a run of bytes; joined ones begin several times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from .mpeg import COUNT_TAGS, chain_at, count_tag, frame_at
from .ogg import CAPTURE, FLAC_HEAD, FLAC_HEAD_SIZE, page_end
from .tags import ID3V2, skip_tags

# Beginnings that no sound holds by chance: an anchor, which is searched fast, and what has to follow it.
_BEGINNINGS = {
    b"RIFF": rb"RIFF.{4}WAVE",
    b"RIFX": rb"RIFX.{4}WAVE",
    b"RF64": rb"RF64.{4}WAVE",
    b"BW64": rb"BW64.{4}WAVE",
    b"FORM": rb"FORM.{4}(AIFF|AIFC|8SVX|16SV)",
    b"OggS\0": rb"OggS\0[\x02\x06]",
    b"fLaC": rb'fLaC[\0\x80]\0\0"',
    b"caff\0\1": rb"caff\0\x01..desc",
    b".snd\0\0": rb".snd\0\0",
    b"dns.": rb"dns\...\0\0",
    b"riff.\x91\xcf\x11": rb"riff\.\x91\xcf\x11\xa5\xd6\x28\xdb",
    b"NIST_1A\n": rb"NIST_1A\n",
    b"Creative Voice File\x1a": rb"Creative Voice File\x1a",
    b"MATLAB 5.0 MAT-f": rb"MATLAB 5\.0 MAT-f",
    b"PVF1\n": rb"PVF1\n\d+ \d+ \d+\n",
    b" paf\0\0\0\0": rb" paf\0\0\0\0",
    b"fap \0\0\0\0": rb"fap \0\0\0\0",
    b"ALawSoundFile**": rb"ALawSoundFile\*\*",
    b"Extended Instrument:": rb"Extended Instrument:",
}
_PATTERNS = {anchor: re.compile(pattern, re.S) for anchor, pattern in _BEGINNINGS.items()}
# Formats with weaker beginnings are found again by the first bytes of the file.
_WEAK = re.compile(
    rb"2BIT|[\x62\x64]\xa3|\0\0[\x01\x02]\xa3|\xf0\x7e|\x01\x04|\0{4}\x01\0{3}|\0\0\x03\xe8\0{3}\x01", re.S
)
_WEAK_HEAD = 32
_COUNT_OFFSETS = (13, 15, 21, 23, 36, 38)  # of the word in a frame, by version and channels


def begins(head: bytes) -> bool:
    """Whether a file that begins with these bytes (16 or more) is surely sound."""
    return any(pattern.match(head) for pattern in _PATTERNS.values())


def beginnings(data: bytes) -> list[int]:
    """Places in order where a file begins."""
    found = {at for anchor, pattern in _PATTERNS.items() for at in _places(data, anchor) if pattern.match(data, at)}
    found.update(_mpeg_files(data))
    found -= _further_streams(data, found)
    if _WEAK.match(data) and any(data[:_WEAK_HEAD]):
        found.update(_places(data, data[:_WEAK_HEAD]))
    return sorted(at for at in found if not _within_ogg(data, at))


def _mpeg_files(data: bytes) -> Iterator[int]:
    """MPEG has no beginning of its own, but most files have a tag, or a first frame that counts the others."""
    for at in _places(data, ID3V2):
        beyond = skip_tags(data, at, len(data))
        if beyond > at + 10 and chain_at(data, beyond, len(data)):
            yield at
    for word in COUNT_TAGS:
        for place in _places(data, word):
            for back in _COUNT_OFFSETS:
                frame = frame_at(data, max(0, place - back))
                if frame and count_tag(data, place - back, frame) == place and chain_at(data, place - back, len(data)):
                    yield place - back


def _further_streams(data: bytes, found: set[int]) -> set[int]:
    """First pages of Ogg that follow another one at once: one file of several streams."""
    ogg = sorted(at for at in found if data.startswith(CAPTURE, at))
    return {at for before, at in pairwise(ogg) if page_end(data, before) == at}


def _places(data: bytes, anchor: bytes) -> list[int]:
    places, at = [], data.find(anchor)
    while at >= 0:
        places.append(at)
        at = data.find(anchor, at + len(anchor))
    return places


def _within_ogg(data: bytes, at: int) -> bool:
    # The first packet of FLAC in Ogg holds the beginning of a FLAC file.
    return at >= FLAC_HEAD_SIZE and data.startswith(FLAC_HEAD, at - FLAC_HEAD_SIZE)
