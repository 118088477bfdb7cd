"""Names files that cannot be read as sound, and what to do about it."""

from __future__ import annotations

import codecs

_CONVERT = "convert it (ffmpeg -i FILE new.wav)"
_UNPACK = "unpack it"
_REPLACE = "download or record it again"
# Where a beginning lies, the beginning, what has it, the remedy.
_BEGINNINGS = (
    (4, b"ftyp", "M4A or MP4", _CONVERT),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska", _CONVERT),
    (0, b"#!AMR", "AMR", _CONVERT),
    (0, b"0&\xb2u\x8ef\xcf\x11", "WMA", _CONVERT),
    (0, b"\xff\xf1", "AAC", _CONVERT),
    (0, b"\xff\xf9", "AAC", _CONVERT),
    (28, b"Speex", "Ogg Speex", _CONVERT),
    (0, b"wvpk", "WavPack", _CONVERT),
    (0, b"MAC ", "Monkey's Audio", _CONVERT),
    (0, b"PK\3\4", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"%PDF", "a PDF", _REPLACE),
    (0, b"\x89PNG", "a picture", _REPLACE),
    (0, b"\xff\xd8\xff", "a picture", _REPLACE),
)
_HEAD = 1024
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def known(data: bytes) -> str | None:
    """What it is and the remedy; None for what is not known here."""
    for at, beginning, what, remedy in _BEGINNINGS:
        if data.startswith(beginning, at):
            return f"is {what}, which is not read here; {remedy}"
    if _is_text(data[:_HEAD]):
        return f"is text, maybe the error of the service that it came from; {_REPLACE}"
    return None


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8, whose last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(head) and _CONTROL.isdisjoint(head)
