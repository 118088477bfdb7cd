"""Mends files that the decoder takes wrongly, Sony's W64 of unknown sizes and Creative's VOC of many blocks."""

from __future__ import annotations

W64, VOC = b"riff.\x91\xcf\x11", b"Creative Voice File\x1a"
_W64_DATA, _W64_FIRST, _W64_NAME, _W64_SIZE = b"data", 40, 16, 8
_VOC_SOUND, _VOC_MORE, _VOC_LAST_KIND = (1, 9), 2, 9
_VOC_HEADER = 4  # kind, size in three bytes


def w64_to_the_end(piece: bytes) -> bytes:
    """The file with sizes that end where it ends, when its sound is said to go on behind that."""
    at, header = _W64_FIRST, _W64_NAME + _W64_SIZE
    while at + header <= len(piece):
        size = int.from_bytes(piece[at + _W64_NAME : at + header], "little")
        if piece.startswith(_W64_DATA, at):
            if at + size <= len(piece):
                break
            made = bytearray(piece)
            made[_W64_NAME:header] = len(piece).to_bytes(_W64_SIZE, "little")
            made[at + _W64_NAME : at + header] = (len(piece) - at).to_bytes(_W64_SIZE, "little")
            return bytes(made)
        at += max(header, size + -size % 8)
    return piece


def voc_of_one_block(piece: bytes) -> bytes:
    """The file with the blocks that continue its sound put into the first one, whose size the decoder ignores."""
    at = int.from_bytes(piece[len(VOC) : len(VOC) + 2], "little")
    made, begun, continued = bytearray(piece[:at]), False, False
    while at < len(piece) and piece[at]:
        kind, size = piece[at], int.from_bytes(piece[at + 1 : at + _VOC_HEADER], "little")
        end = at + _VOC_HEADER + size
        if kind > _VOC_LAST_KIND or (begun and kind in _VOC_SOUND):
            return piece  # its sizes were never written, or its sound changes
        if kind == _VOC_MORE:
            made += piece[at + _VOC_HEADER : end]
            continued = True
        elif kind in _VOC_SOUND:
            made += piece[at:end]
            begun = True
        at = end
    return bytes(made) if continued else piece
