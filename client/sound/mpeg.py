"""MPEG audio as a stream of frames: joined files, wrong counts, tags in the middle.

The decoder trusts the count of frames that the first frame of a file may hold (Xing, Info), and guesses where there
is none. So every stream is given to it with the count of the frames that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .tags import skip_tags

HEADER = 4
SYNC = 0xFFE
RESYNC = 64 * 1024  # bytes of damage that are passed over at most
CHAIN = 3  # frames in a row that make a beginning
# By version (3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5) and layer (3: I, 2: II, 1: III), kbit/s by index.
_LOW_II_III = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LOW_I = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_HIGH = {
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
MPEG1, LAYER_I, LAYER_III, MONO = 3, 3, 1, 3
ROOMY = 9  # bitrate index of a frame that surely holds a count
COUNT_TAGS = (b"Xing", b"Info")
VBRI, VBRI_OFFSET = b"VBRI", 36
HAS_FRAMES, HAS_BYTES = 1, 2
TRIM_OFFSET = 141  # in LAME's part of the tag: 12 bits of delay, 12 bits of padding
MOST_TRIMMED = 2 * 4096


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: ``kind`` is its version, layer, rate and whether it is mono; a stream has one kind."""

    size: int
    samples: int
    kind: tuple[int, int, int, bool]


@dataclass(frozen=True, slots=True)
class Stream:
    """Frames of one file without anything between them, and how many samples they hold at least."""

    content: bytes
    least: int


def frame_at(data: bytes, at: int) -> Frame | None:
    """The frame whose header is there; None where there is none."""
    head = int.from_bytes(data[at : at + HEADER], "big")
    version, layer = head >> 19 & 3, head >> 17 & 3
    if at + HEADER > len(data) or (head >> 20 != SYNC and head >> 20 != SYNC | 1) or version == 1 or not layer:
        return None
    index, rate_index = head >> 12 & 15, head >> 10 & 3
    if index in (0, 15) or rate_index == 3:
        return None
    return _frame(version, layer, index, rate_index, head >> 9 & 1, (head >> 6 & 3) == MONO)


def _frame(version: int, layer: int, index: int, rate_index: int, padding: int, mono: bool) -> Frame:
    rates = _HIGH[layer] if version == MPEG1 else _LOW_I if layer == LAYER_I else _LOW_II_III
    bits, rate = rates[index] * 1000, _RATES[version][rate_index]
    samples = 384 if layer == LAYER_I else 576 if layer == LAYER_III and version != MPEG1 else 1152
    size = (12 * bits // rate + padding) * 4 if layer == LAYER_I else samples // 8 * bits // rate + padding
    return Frame(size, samples, (version, layer, rate, mono))


def chain_at(data: bytes, at: int, limit: int, length: int = CHAIN) -> bool:
    """Whether frames of one kind follow one another from there on, or up to the limit."""
    first, seen = frame_at(data, at), 0
    while (frame := frame_at(data, at)) is not None and first is not None and frame.kind == first.kind:
        at, seen = at + frame.size, seen + 1
        if seen >= length or (at >= limit and seen > 1):
            return True
    return seen > 1 and skip_tags(data, at, limit) == limit


def find_chain(data: bytes, at: int, limit: int, reach: int | None = None) -> int | None:
    """The first place before ``reach`` where frames begin."""
    end = min(limit, at + RESYNC) if reach is None else reach
    while 0 <= (at := data.find(b"\xff", at, end)) < end:
        if chain_at(data, at, limit):
            return at
        at += 1
    return None


def streams(data: bytes, at: int, limit: int) -> tuple[list[Stream], int]:
    """All streams from ``at`` on, and where they end."""
    runs: list[list[tuple[int, Frame]]] = []
    end = at
    for place, frame in _frames(data, at, limit):
        if not runs or runs[-1][0][1].kind != frame.kind or count_tag(data, place, frame) is not None:
            runs.append([])
        runs[-1].append((place, frame))
        end = min(limit, place + frame.size)
    return [_stream(data, run, limit) for run in runs], end


def _frames(data: bytes, at: int, limit: int) -> Iterator[tuple[int, Frame]]:
    kind = None
    while at < limit:
        frame = frame_at(data, at)
        if frame is None or (kind is not None and frame.kind != kind and not chain_at(data, at, limit)):
            beyond = skip_tags(data, at, limit)
            found = beyond if chain_at(data, beyond, limit, 1) else find_chain(data, beyond, limit)
            if found is None or found <= at:
                return
            at = found
            continue
        kind = frame.kind
        yield at, frame
        at += frame.size


def count_tag(data: bytes, at: int, frame: Frame) -> int | None:
    """Where the tag in a frame begins that counts frames; None for a frame of sound."""
    version, layer, _, mono = frame.kind
    if layer != LAYER_III:
        return None
    side = (17 if mono else 32) if version == MPEG1 else (9 if mono else 17)
    for place in (at + HEADER + side, at + HEADER + side + 2):  # two bytes of checksum, or none
        if data[place : place + 4] in COUNT_TAGS:
            return place
    return at + VBRI_OFFSET if data[at + VBRI_OFFSET : at + VBRI_OFFSET + 4] == VBRI else None


def _stream(data: bytes, run: list[tuple[int, Frame]], limit: int) -> Stream:
    (start, first), sound = run[0], run
    tag = count_tag(data, start, first)
    if tag is not None:
        sound = run[1:]
    content = b"".join(data[place : min(limit, place + frame.size)] for place, frame in sound)
    least = max(0, sum(frame.samples for _, frame in sound) - MOST_TRIMMED)
    if first.kind[1] == LAYER_III:
        content = _counting(data, start, first, tag, len(sound), len(content)) + content
    return Stream(content, least)


def _counting(data: bytes, start: int, first: Frame, tag: int | None, frames: int, size: int) -> bytes:
    """The frame before the sound that says how much follows: the file's own, mended, or a new one."""
    if tag is None or data[tag : tag + 4] not in COUNT_TAGS or not data[tag + 7] & HAS_FRAMES:
        return _new_count(data[start : start + HEADER], frames, size)
    made, at = bytearray(data[start : start + first.size]), tag - start
    said = int.from_bytes(made[at + 8 : at + 12], "big")
    made[at + 8 : at + 12] = frames.to_bytes(4, "big")
    if made[at + 7] & HAS_BYTES:
        made[at + 12 : at + 16] = (size + first.size).to_bytes(4, "big")
    if said > frames and len(made) > at + TRIM_OFFSET + 2:  # cut short: its end is no padding
        made[at + TRIM_OFFSET + 1] &= 0xF0
        made[at + TRIM_OFFSET + 2] = 0
    return bytes(made)


def _new_count(header: bytes, frames: int, size: int) -> bytes:
    head = bytearray(header)
    head[1] |= 1  # no checksum
    head[2] = ROOMY << 4 | head[2] & 0x0C
    frame = frame_at(bytes(head), 0)
    assert frame is not None, "the header is that of a frame"
    mono, mpeg1 = frame.kind[3], frame.kind[0] == MPEG1
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    told = (HAS_FRAMES | HAS_BYTES).to_bytes(4, "big") + frames.to_bytes(4, "big")
    made = bytes(head) + bytes(side) + COUNT_TAGS[1] + told + (size + frame.size).to_bytes(4, "big")
    return made.ljust(frame.size, b"\0")
