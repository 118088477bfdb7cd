"""Files of chunks (WAV, RF64, AIFF, CAF) and AU whose sizes were never written, or not to the end.

A recorder that dies, or writes into a pipe, leaves sizes of 0, of all ones, or of some moment before its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .blocks import VOC, W64, voc_of_one_block, w64_to_the_end
from .limits import SoundError
from .mpeg import chain_at
from .tags import skip_tags

SLACK = 16  # stray bytes behind the last chunk that mean nothing
UNSET_32 = 0xFFFFFFFF
AU_SIZE = slice(8, 12)
PRINTABLE = range(0x20, 0x7F)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a kind of file writes its chunks."""

    first: int  # byte of the first chunk
    order: Literal["little", "big"]
    size_bytes: int
    data: bytes  # the chunk of sound
    pads: bool = True


LAYOUTS = {
    b"RIFF": Layout(12, "little", 4, b"data"),
    b"RIFX": Layout(12, "big", 4, b"data"),
    b"RF64": Layout(12, "little", 4, b"data"),
    b"BW64": Layout(12, "little", 4, b"data"),
    b"FORM": Layout(12, "big", 4, b"SSND"),
    b"caff": Layout(8, "big", 8, b"data", pads=False),
}
_IFF_SOUND = {b"8SVX": b"BODY", b"16SV": b"BODY"}
IFF_CHANNELS, IFF_STEREO = b"CHAN", b"\0\0\0\6"  # one channel behind the other, which the decoder does not know


def mended(piece: bytes) -> tuple[bytes, int]:
    """The file with sizes that hold all of its sound, and where it ends in the piece.

    Raises:
        SoundError: its sound lies in a way that the decoder does not know.
    """
    if piece[:4] in (b".snd", b"dns."):
        made = bytearray(piece)
        made[AU_SIZE] = b"\xff" * 4  # unknown: up to the end
        return bytes(made), len(piece)
    if piece.startswith(W64):
        return w64_to_the_end(piece), len(piece)
    if piece.startswith(VOC):
        return voc_of_one_block(piece), len(piece)
    layout = LAYOUTS.get(piece[:4])
    if layout is None:
        return piece, len(piece)
    sound_id = _IFF_SOUND.get(piece[8:12], layout.data)
    for name, at, size in _chunks(piece, layout):
        if name == IFF_CHANNELS and piece[at : at + len(IFF_STEREO)] == IFF_STEREO:
            raise SoundError("is 8SVX with two channels, which are read wrongly; convert it (ffmpeg -i FILE new.wav)")
        if name == sound_id:
            return _with_size(piece, layout, at, _long_size(piece, size))
    return piece, len(piece)


def _chunks(piece: bytes, layout: Layout) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content, size."""
    at = layout.first
    while at + 4 + layout.size_bytes <= len(piece):
        content = at + 4 + layout.size_bytes
        size = _number(piece[at + 4 : content], layout)
        yield piece[at : at + 4], content, size
        at = content + size + (size & 1 if layout.pads else 0)


def _number(field: bytes, layout: Layout) -> int:
    return int.from_bytes(field, layout.order)


def _long_size(piece: bytes, size: int) -> int:
    """RF64 keeps the size of its sound elsewhere."""
    if piece[:4] in (b"RF64", b"BW64") and size == UNSET_32 and piece[12:16] == b"ds64":
        return int.from_bytes(piece[28:36], "little")
    return size


def _with_size(piece: bytes, layout: Layout, at: int, size: int) -> tuple[bytes, int]:
    end = at + size
    if end <= len(piece):
        for place in {end, end + (size & 1)}:
            rest = _behind_chunks(piece, layout, min(place, len(piece)))
            if rest is not None:
                return piece[:rest], rest
    if end > len(piece) and size < UNSET_32 and piece[:4] not in (b"caff", b"RF64", b"BW64"):
        return piece, len(piece)  # cut off: the decoder takes what is there
    return _stretched(piece, layout, at), len(piece)


def _behind_chunks(piece: bytes, layout: Layout, at: int) -> int | None:
    """Where the chunks end that follow the sound; None when something else follows it."""
    start = at
    while at < len(piece):
        rest = len(piece) - at
        content = at + 4 + layout.size_bytes
        size = _number(piece[at + 4 : content], layout)
        named = all(byte in PRINTABLE for byte in piece[at : at + 4])
        if rest <= SLACK or skip_tags(piece, at, len(piece)) == len(piece):
            return len(piece)
        if chain_at(piece, skip_tags(piece, at, len(piece)), len(piece)):
            return at
        if not named or content + size > len(piece) + 1:
            return at if at > start else None
        at = content + size + (size & 1 if layout.pads else 0)
    return len(piece)


def _stretched(piece: bytes, layout: Layout, at: int) -> bytes:
    """The sound goes on to the end."""
    size, made = len(piece) - at, bytearray(piece)
    if piece[:4] in (b"RF64", b"BW64"):
        made[20:28] = (len(piece) - 8).to_bytes(8, "little")
        made[28:36] = size.to_bytes(8, "little")
        made[36:44] = bytes(8)
        return bytes(made)
    width = layout.size_bytes
    made[at - width : at] = size.to_bytes(width, layout.order)
    if layout.first == 12:
        made[4:8] = (len(piece) - 8).to_bytes(4, layout.order)
    return bytes(made)
