"""The head of a FLAC stream."""

from __future__ import annotations

STREAMINFO_HEAD = b'fLaC\0\0\0"'
_BEGIN = 8  # of STREAMINFO
_TOTAL, _MD5 = slice(_BEGIN + 13, _BEGIN + 18), slice(_BEGIN + 18, _BEGIN + 34)


def without_length(data: bytes) -> bytes:
    """The stream with an unknown number of samples and no checksum of them: the decoder reads on to its end."""
    made = bytearray(data[: _MD5.stop])
    if len(made) == _MD5.stop:
        made[_TOTAL] = bytes([made[_TOTAL][0] & 0xF0, 0, 0, 0, 0])
        made[_MD5] = bytes(16)
    return bytes(made) + data[_MD5.stop :]
