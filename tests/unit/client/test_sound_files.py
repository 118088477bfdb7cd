"""Sound files in the states that people have them in: all of the sound, or one clear error."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sound_files import DATA, RATE, SAMPLES, every_format, flac_in_ogg, patched, sealed, share, tone, written

from client import ChatError, read_audio
from client.sound import ogg
from client.sound.decode import decode
from client.sound.limits import SoundError

FORMATS = tuple(every_format())
ID3 = b"ID3\x04\0\0\0\0\x01\x00" + b"\x7f" * 128
ID3V1 = b"TAG" + b"x" * 125
APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0)
FREQUENT = ("WAV", "FLAC", "MP3", "OGG", "AIFF", "AU", "CAF", "W64", "RF64", "WAVEX", "VOC", "NIST")


def one(kind):
    return next(content for (name, _), content in every_format().items() if name == kind)


def length(content):
    return decode(content)[0].size


@pytest.mark.parametrize("kind", FORMATS, ids="-".join)
def test_every_format_is_read_alone_and_joined(kind):
    content = every_format()[kind]
    alone = length(content)
    assert 0 <= alone - SAMPLES < 800  # block codecs pad
    if kind[0] == "HTK":  # its size is part of how it is known
        with pytest.raises(SoundError, match="cannot be read"):
            decode(content * 2)
    else:
        assert length(content * 2) == 2 * alone and length(content * 3) == 3 * alone


@pytest.mark.parametrize("first", FREQUENT)
@pytest.mark.parametrize("second", FREQUENT)
def test_any_two_joined(first, second):
    assert length(one(first) + one(second)) == length(one(first)) + length(one(second))


@pytest.mark.parametrize("name", ["two_mp3_joined.mp3", "two_opus_chained.ogg", "two_vorbis_chained.ogg"])
def test_both_parts_of_public_cases(name, capfd):
    samples, rate = read_audio(DATA / name)
    assert samples.size == pytest.approx(2.4 * rate, rel=0.02)
    half = samples.size // 2
    assert share(samples[:half], rate, 220) > 0.9 and share(samples[half:], rate, 880) > 0.9
    assert capfd.readouterr().err == ""


def test_parts_of_other_rates_and_channels_become_one():
    stereo = np.stack([tone(880, 4800, 48_000)] * 2, axis=1)
    samples, rate = decode(written() + written(stereo, "FLAC", rate=48_000))
    assert (rate, samples.size) == (RATE, SAMPLES + 1600)
    assert share(samples[SAMPLES:], rate, 880) > 0.9


def test_a_flac_of_unknown_length_is_read():
    samples, rate = read_audio(DATA / "flac_unknown_total.flac")
    assert (samples.size, rate) == (19_200, RATE)
    assert length(patched(written(kind="FLAC"), 22, b"\0\0\0\x10")) == SAMPLES, "too few"


def test_flac_in_ogg_is_read_and_chained():
    content = flac_in_ogg(written(kind="FLAC"))
    assert np.array_equal(decode(content)[0], decode(written(kind="FLAC"))[0])
    assert length(content + content) == 2 * SAMPLES == length(written(kind="FLAC") + content)
    assert length(flac_in_ogg((DATA / "flac_unknown_total.flac").read_bytes())) == 19_200


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 2_000, 5_000_000])
@pytest.mark.parametrize(("kind", "chunk", "order"), [("WAV", b"data", "little"), ("AIFF", b"SSND", "big")])
def test_sizes_that_were_never_written(kind, chunk, order, size):
    content = written(kind=kind, subtype="PCM_16")
    field = size.to_bytes(4, order)
    wrong = patched(content, content.index(chunk) + 4, field)
    assert length(wrong) == SAMPLES == length(patched(wrong, 4, field))
    assert length(wrong * 2) == 2 * SAMPLES


@pytest.mark.parametrize(("kind", "at", "size"), [("AU", 8, 4), ("W64", 0, 8), ("CAF", 0, 8), ("RF64", 0, 8)])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_sizes_of_other_formats(kind, at, size, byte):
    content = written(kind=kind, subtype="PCM_16")
    places = {"W64": content.find(b"data") + 16, "CAF": content.find(b"data") + 4, "RF64": content.find(b"ds64") + 16}
    assert length(patched(content, places.get(kind, at), byte * size)) == pytest.approx(SAMPLES, abs=3000)


def test_a_chunk_behind_the_sound_is_no_sound():
    content = written() + b"LIST\x0a\0\0\0INFOabcdef"
    assert length(content) == SAMPLES == length(content + b"x")


@pytest.mark.parametrize("count", [1, 5, 100_000])
def test_an_mp3_whose_count_is_wrong(count):
    content = written(tone(samples=32_000), "MP3")
    at = content.index(b"Xing") + 8
    whole, wrong = decode(content)[0], decode(patched(content, at, count.to_bytes(4, "big")))[0]
    assert 0 <= wrong.size - whole.size < 2 * 1152 and np.array_equal(wrong[: whole.size], whole)


def test_an_mp3_without_a_count_or_in_the_middle_of_a_frame():
    content = written(tone(samples=32_000), "MP3")
    audio = content[content.index(b"\xff\xf3", 4) :]
    assert 32_000 <= length(audio) < 32_000 + 3 * 1152 and length(audio[100:]) > 30_000


@pytest.mark.parametrize("kind", ["MP3", "FLAC"])
def test_tags_in_front_behind_and_between(kind):
    content = written(kind=kind)
    assert length(ID3 + content) == length(content)
    assert length(content + ID3V1) == length(content)
    assert length(ID3 + ID3 + content + ID3V1 + ID3 + content + ID3V1) == 2 * length(content)


def test_more_tags_of_mp3():
    content = written(kind="MP3")
    for tag in (APE, APE + ID3V1, b"TAG+" + b"x" * 223 + ID3V1, bytes(5000), ID3[:6] + b"\xff" * 4):
        assert length(content + tag) == length(content), tag[:8]


@pytest.mark.parametrize("kind", FORMATS, ids="-".join)
def test_truncated_files_give_what_is_there_or_an_error(kind):
    content = every_format()[kind]
    try:
        assert SAMPLES * 0.4 < length(content[: len(content) * 2 // 3]) <= length(content)
    except SoundError as error:
        assert "cannot be read" in str(error) or "cut off" in str(error) or "no samples" in str(error)


def test_opus_is_read_as_far_as_its_pages_go():
    content = written(tone(samples=96_000), "OGG", "OPUS")
    assert 48_000 < length(content[: len(content) * 3 // 4]) < 96_000


@pytest.mark.parametrize("position", [5000, -1])
@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_an_end_that_comes_too_early_is_told(subtype, position):
    content = written(tone(samples=160_000), "OGG", subtype)
    last = list(ogg.pages(content, 0, len(content)))[-1]
    page = patched(content[last.start : last.end], 6, position.to_bytes(8, "little", signed=True))
    with pytest.raises(SoundError, match="write it again"):
        decode(content[: last.start] + sealed(page))


def test_something_else_behind_the_sound_is_told():
    with pytest.raises(SoundError, match="goes on after byte"):
        decode(written(kind="MP3") + np.random.default_rng(1).bytes(20_000).replace(b"\xff", b"\xfe"))


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damage_gives_samples_or_an_error(data):
    content = bytearray(every_format()[data.draw(st.sampled_from(FORMATS))])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    if data.draw(st.booleans()):
        other = every_format()[data.draw(st.sampled_from(FORMATS))]
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + other[data.draw(st.integers(0, len(other))) :] + content[at:]
    try:
        samples, rate = decode(content)
    except SoundError as error:
        assert str(error)
    else:
        assert samples.dtype == np.float32 and samples.ndim == 1 and samples.size and np.isfinite(samples).all()
        assert 4_000 <= rate <= 192_000


NAMES = ("-a.wav", "line\nbreak.wav", "http:", "a b$(x)é模型.flac", os.fsdecode(b"\xff\xfe.wav"), "x.raw", "x", "x.mp3")


@pytest.mark.parametrize("name", NAMES)
def test_names_mean_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(written())
    assert read_audio(tmp_path / name)[0].size == SAMPLES
    assert read_audio(str(tmp_path / name), 8000)[0].size == SAMPLES // 2


def test_what_is_no_file_of_sound_is_refused_by_its_name(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "headerless.raw").write_bytes(tone().tobytes())
    (tmp_path / "empty.wav").touch()
    (tmp_path / "closed.wav").write_bytes(b"RIFF")
    for name in ("fifo", "headerless.raw", "empty.wav", "closed.wav", "none.wav", ".", "a\0b"):
        with pytest.raises(ChatError, match=r"^(INVALID_ARG|NOT_FOUND): audio-path: "):
            read_audio(tmp_path / name)


@pytest.mark.parametrize("rate", [0, -1, 1, 192_001, 10**14, 2**80, 10**400])
def test_a_rate_is_looked_at_before_anything_is_resampled(tmp_path, rate):
    (tmp_path / "x.wav").write_bytes(written())
    with pytest.raises(ChatError, match=r"^INVALID_ARG: sampling-rate: .* samples per second"):
        read_audio(tmp_path / "x.wav", rate)


def test_other_rates_of_files(tmp_path):
    content = written(rate=384_000)
    with pytest.raises(SoundError, match="384000 samples per second"):
        decode(content)
    assert decode(written(tone(samples=38_400), rate=384_000), 48_000)[0].size == 4_800
    with pytest.raises(SoundError, match="samples per second"):
        decode(patched(written(), 24, struct.pack("<I", 2_000_000_000)), 16_000)


def test_too_long_and_too_wide_and_too_short():
    hours = np.zeros(310 * 8_000, np.float32)
    with pytest.raises(SoundError, match="longer than 300 s"):
        decode(written(hours, "FLAC", rate=8_000))
    with pytest.raises(SoundError, match="longer than 300 s"):
        decode(written(hours[: 160 * 8_000], "FLAC", rate=8_000) * 2)
    header = written(subtype="PCM_U8")
    assert length(patched(header, 22, struct.pack("<H", 8))) == SAMPLES // 8
    for samples in (1, 639):
        with pytest.raises(SoundError, match="hears nothing; send at least 40 ms"):
            decode(written(tone(samples=samples)))
    assert length(written(tone(samples=640))) == 640


@pytest.mark.parametrize("peak", [9.0, 9_600.0, 32_767.0, 1e30, np.nan, np.inf])
def test_samples_that_were_never_scaled(peak):
    with pytest.raises(SoundError, match=r"divide them by the full scale \(32768|NaN or infinite"):
        decode(written(tone(loudness=peak), subtype="FLOAT"))


def test_loud_sound_passes():
    assert np.abs(decode(written(tone(loudness=4.2), subtype="FLOAT"))[0]).max() == pytest.approx(4.2, rel=1e-3)


def test_every_layout_of_channels_is_taken(tmp_path):
    for channels in (2, 3, 6, 8, 64):
        sound = np.zeros((SAMPLES, channels), np.float32)
        sound[:, channels // 2] = tone()
        path = tmp_path / "x.wav"
        soundfile.write(path, sound, RATE, subtype="FLOAT")
        assert np.array_equal(read_audio(path)[0], tone())
