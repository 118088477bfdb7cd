"""Sound between other streams and blocks, and files that are no sound that can be read."""

from __future__ import annotations

import numpy as np
import pytest
from sound_files import DATA, patched, share, written

from client.sound.decode import decode
from client.sound.limits import SoundError


@pytest.mark.parametrize("name", ["skeleton.ogg", "video_first.ogv", "blocks.voc"])
def test_streams_and_blocks_of_other_kinds_are_no_sound(name):
    samples, rate = decode((DATA / name).read_bytes())
    assert len(samples) / rate == pytest.approx(1.2, abs=0.05)
    assert share(samples, rate, 220) > 0.95


def test_w64_from_a_pipe_and_sound_of_two_planes():
    content = written(kind="W64")
    at = content.index(b"data\xf3\xac\xd3\x11") + 16
    endless = patched(patched(content, at, b"\xff" * 7 + b"\x7f"), 16, b"\xff" * 8)
    assert np.array_equal(decode(endless)[0], decode(content)[0])
    stereo = b"FORM\0\0\0\x408SVXVHDR\0\0\0\x14" + bytes(20) + b"CHAN\0\0\0\4\0\0\0\6BODY\0\0\0\x08" + bytes(8)
    with pytest.raises(SoundError, match=r"8SVX with two channels.*ffmpeg"):
        decode(stereo)


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (b"\0\0\0\x20ftypM4A ", "is M4A or MP4.*ffmpeg -i"),
        (b"\x1aE\xdf\xa3", "is WebM or Matroska.*ffmpeg -i"),
        (b"#!AMR\n", "is AMR.*ffmpeg -i"),
        (b"0&\xb2u\x8ef\xcf\x11", "is WMA.*ffmpeg -i"),
        (b"\xff\xf1\x50\x80", "is AAC.*ffmpeg -i"),
        (b"PK\3\4", "is a zip archive.*unpack"),
        (b"\x1f\x8b\x08", "is a gzip archive.*unpack"),
        (b"\x00\x01\x02", "cannot be read.*ffmpeg -i"),
    ],
)
def test_what_a_file_is_that_cannot_be_read(beginning, said):
    with pytest.raises(SoundError, match=said):
        decode(beginning + bytes(range(1, 200)))


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html>" + "x" * 1009 + "\u4f60" * 9, '{"error": "rate limit"}', "version https://git"]
)
def test_text_in_place_of_sound_is_told(text):
    with pytest.raises(SoundError, match="is text, maybe the error"):
        decode(text.encode())
