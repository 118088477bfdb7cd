"""Splits the bytes of a file into parts, each of which a decoder reads to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from . import chunks, mpeg, ogg
from .flac import STREAMINFO_HEAD, without_length
from .limits import SoundError
from .starts import beginnings
from .tags import ID3V2, TAGS, skip_tags

CHECKSUM = 2
STRAY = 2048  # bytes that are no sound, as of a frame that was cut off


@dataclass(frozen=True, slots=True)
class Part:
    """Content of one file, and the samples that it must give at least."""

    content: bytes
    least: int = 0


def parts_of(data: bytes) -> Iterator[Part]:
    """All parts in order.

    Raises:
        SoundError: something lies between or behind them that is neither sound nor a tag.
    """
    starts = [at for at in beginnings(data) if not _within_first_tag(data, at)]
    first = starts[0] if starts else len(data)
    yield from _loose(data, 0, first, alone=skip_tags(data, 0, first) < first - STRAY or not starts)
    for start, limit in pairwise([*starts, len(data)]):
        end = start
        if not mpeg.chain_at(data, skip_tags(data, start, limit), limit):
            content, end = _file(data, start, limit)
            yield Part(content)
        yield from _loose(data, end, limit, alone=False)


def _within_first_tag(data: bytes, at: int) -> bool:
    return data.startswith(ID3V2) and at < skip_tags(data, 0, len(data))


def _file(data: bytes, start: int, limit: int) -> tuple[bytes, int]:
    if data.startswith(ogg.CAPTURE, start):
        return ogg.link(data, start, limit)
    if data.startswith(STREAMINFO_HEAD[:4], start):
        return _flac(data, start, limit)
    content, end = chunks.mended(data[start:limit])
    return content, start + end


def _flac(data: bytes, start: int, limit: int) -> tuple[bytes, int]:
    """Up to the tags or the zeros behind it; the last two bytes are a checksum, which may be zero."""
    end = _tags_start(data, start, limit)
    sound = len(data[max(start, end - STRAY) : end].rstrip(b"\0"))
    end = min(end, max(start, end - STRAY) + sound + CHECKSUM)
    return without_length(data[start:end]), end


def _tags_start(data: bytes, start: int, limit: int) -> int:
    """Where the tags begin that end a piece; its limit when there are none."""
    found = limit
    for word in TAGS:
        at = data.find(word, start, limit)
        while 0 <= at < found:
            if skip_tags(data, at, limit) == limit:
                found = at
            at = data.find(word, at + 1, limit)
    return found


def _loose(data: bytes, start: int, limit: int, alone: bool) -> Iterator[Part]:
    """What has no strong beginning: MPEG frames, tags, or (alone) whatever the decoder makes of it."""
    at = skip_tags(data, start, limit)
    if at == limit and not alone:
        return
    reach = min(limit, at + STRAY) if alone else limit  # a stream that was cut out begins within a frame
    first = at if mpeg.chain_at(data, at, limit) else mpeg.find_chain(data, at, limit, reach)
    if first is None:
        if alone:
            yield Part(data[start:limit])
        else:
            _check_stray(at, limit)
        return
    streams, end = mpeg.streams(data, first, limit)
    yield from (Part(stream.content, stream.least) for stream in streams)
    _check_stray(skip_tags(data, end, limit), limit)


def _check_stray(at: int, limit: int) -> None:
    if limit - at > STRAY:
        raise SoundError(f"goes on after byte {at} with something that is no sound; write it again (ffmpeg)")
