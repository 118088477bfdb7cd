"""Finds in Ogg pages where a link of a chain ends, and whether its positions can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .flac import without_length
from .limits import SoundError

CAPTURE, HEADER = b"OggS", 27
FIRST = 2  # flag of the first page of a stream
UNKNOWN = -1  # position of a page on which no packet ends
FLAC_HEAD, FLAC_HEAD_SIZE = b"\x7fFLAC", 9  # before the head of a FLAC file
OPUS_HEAD, OPUS_RATE = b"OpusHead", 48_000
SOUND_HEADS = (OPUS_HEAD, FLAC_HEAD, b"\x01vorbis")
# Samples at 48 kHz of an Opus frame, by the upper five bits of its first byte.
_OPUS_FRAMES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
MOST_TRIMMED = 2 * OPUS_RATE  # of a page that ends before its packets do


@dataclass(frozen=True, slots=True)
class Page:
    """A page from ``start`` to ``end``, its flags, the position that it says, its stream, its packets."""

    start: int
    end: int
    flags: int
    position: int
    serial: bytes
    packets: tuple[tuple[int, int], ...]  # start and end of those that end here, or go on


def pages(data: bytes, at: int, limit: int) -> Iterator[Page]:
    """Whole pages; what is damaged between them is passed over."""
    while (at := data.find(CAPTURE, at, limit)) >= 0:
        page = _page(data, at, limit)
        if page is None:
            at += len(CAPTURE)
            continue
        yield page
        at = page.end


def page_end(data: bytes, at: int) -> int | None:
    """Where the page there ends; None when it is none, or not whole."""
    page = _page(data, at, len(data))
    return None if page is None else page.end


def _page(data: bytes, at: int, limit: int) -> Page | None:
    if at + HEADER > limit:
        return None
    body = at + HEADER + data[at + 26]
    lacing = data[at + HEADER : body]
    end = body + sum(lacing)
    if end > limit or data[at + 4]:
        return None
    packets, start = [], body
    for size in lacing:
        body += size
        if size < 255:
            packets.append((start, body))
            start = body
    if start < end:
        packets.append((start, end))
    position = int.from_bytes(data[at + 6 : at + 14], "little", signed=True)
    return Page(at, end, data[at + 5], position, data[at + 14 : at + 18], tuple(packets))


def link(data: bytes, at: int, limit: int) -> tuple[bytes, int]:
    """One link of a chain, as far as whole pages go, and where it ends.

    Raises:
        SoundError: its positions run backwards or are missing, so that the decoder would stop early.
    """
    found = list(pages(data, at, limit))
    if not found:
        raise SoundError("is cut off in its first page; record it again")
    sound = _sound_pages(data, found)
    _check_positions(sound)
    _check_opus(data, sound)
    # The rest of a page that was cut off belongs to the link.
    cut = data.find(CAPTURE, found[-1].end, limit)
    end = limit if cut >= 0 else found[-1].end
    if _begins_with(data, sound[0], FLAC_HEAD):
        return _native_flac(data, sound), end
    return b"".join(data[page.start : page.end] for page in sound), end


def _sound_pages(data: bytes, found: list[Page]) -> list[Page]:
    """Those of the first stream of sound. Video, an index or subtitles may lie between and before them."""
    serial = next((page.serial for page in found if _begins_with(data, page, SOUND_HEADS)), found[0].serial)
    return [page for page in found if page.serial == serial]


def _begins_with(data: bytes, page: Page, head: bytes | tuple[bytes, ...]) -> bool:
    return bool(page.packets) and data.startswith(head, page.packets[0][0])


def _check_positions(found: list[Page]) -> None:
    last = UNKNOWN
    for page in found:
        if page.position == UNKNOWN:
            continue
        if page.position < last:
            raise SoundError("has positions that run backwards, so that its length is unknown; write it again (ffmpeg)")
        last = page.position
    if found[-1].position == UNKNOWN and len(found) > 2:
        raise SoundError("does not say how long it is; write it again (ffmpeg)")


def _check_opus(data: bytes, found: list[Page]) -> None:
    """Compares the length that is said with that of the packets."""
    if not _begins_with(data, found[0], OPUS_HEAD):
        return
    sound = [page for page in found[2:] if page.position != UNKNOWN]
    if not sound:
        return
    held = sum(_opus_samples(data[a:b]) for page in sound for a, b in page.packets)
    said = sound[-1].position - min(0, sound[0].position)
    if held > said + MOST_TRIMMED:
        raise SoundError("goes on behind the end that it says; write it again (ffmpeg)")


def _opus_samples(packet: bytes) -> int:
    if not packet:
        return 0
    code = packet[0] & 3
    count = 1 if code == 0 else 2 if code < 3 else packet[1] & 63 if len(packet) > 1 else 0
    return _OPUS_FRAMES[packet[0] >> 3] * count


def _native_flac(data: bytes, found: list[Page]) -> bytes:
    """FLAC without its Ogg, which the decoder may not know; its length may be missing or wrong."""
    bodies = [data[page.packets[0][0] : page.end] for page in found if page.packets]
    return without_length(b"".join(bodies)[FLAC_HEAD_SIZE:])
