"""Skips tags and padding around the sound of a file."""

from __future__ import annotations

ID3V2, ID3V2_HEADER = b"ID3", 10
ID3V1, ID3V1_SIZE = b"TAG", 128
ID3V1_PLUS, ID3V1_PLUS_SIZE = b"TAG+", 227
APE, APE_HEADER = b"APETAGEX", 32
LYRICS, LYRICS_ENDS = b"LYRICSBEGIN", (b"LYRICS200", b"LYRICSEND")
TAGS = (ID3V2, ID3V1, APE, LYRICS)
FOOTER_FLAG = 0x10
MOST_PADDING = 4096  # looked at together


def skip_tags(data: bytes, at: int, limit: int) -> int:
    """The first byte behind all tags and zeros from ``at`` on; not beyond ``limit``."""
    while at < limit:
        end = min(limit, _tag_end(data, at, limit))
        if end == at:
            end = _zeros_end(data, at, limit)
        if end == at:
            return at
        at = end
    return limit


def _tag_end(data: bytes, at: int, limit: int) -> int:
    if data.startswith(ID3V2, at):
        return _id3v2_end(data, at)
    if data.startswith(APE, at) and at + APE_HEADER <= limit:
        flags = int.from_bytes(data[at + 20 : at + 24], "little")
        is_header = bool(flags & 1 << 29)
        return at + APE_HEADER + (int.from_bytes(data[at + 12 : at + 16], "little") if is_header else 0)
    if data.startswith(ID3V1_PLUS, at) and data.startswith(ID3V1, at + ID3V1_PLUS_SIZE):
        return at + ID3V1_PLUS_SIZE
    if data.startswith(ID3V1, at):
        return at + ID3V1_SIZE
    if data.startswith(LYRICS, at):
        ends = [end + len(word) for word in LYRICS_ENDS if (end := data.find(word, at, limit)) >= 0]
        return min(ends, default=at)
    return at


def _id3v2_end(data: bytes, at: int) -> int:
    """A size that is none, or beyond the file, counts for its header only: what follows is looked at."""
    header = data[at : at + ID3V2_HEADER]
    if len(header) < ID3V2_HEADER or max(header[6:]) > 0x7F:
        return at + len(header)
    size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    end = at + ID3V2_HEADER + size + (ID3V2_HEADER if header[5] & FOOTER_FLAG else 0)
    return end if end <= len(data) else at + ID3V2_HEADER


def _zeros_end(data: bytes, at: int, limit: int) -> int:
    while at < limit and not data[at]:
        block = data[at : min(limit, at + MOST_PADDING)]
        at += len(block) - len(block.lstrip(b"\0"))
    return at
