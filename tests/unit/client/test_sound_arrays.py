"""Sound and numbers that a program may pass: taken as their user means them, or refused by name."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import enum
import gzip
import io
import math
import pathlib
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_files import RATE, SAMPLES, tone, written

from client import NO_RETRY, AsyncChatClient, ChatClient, ChatError
from client.request import make_request

TONE = tone()
INT16 = (TONE * 32767).astype(np.int16)


class Mode(str, enum.Enum):  # noqa: UP042 - a StrEnum is the easy one
    TEXT = "s2t"


def closed(file):
    file.close()
    return file


def request(audio=None, sample_rate=RATE, text="x", messages=None, outputs=None, **parameters):
    return make_request(audio, sample_rate, text, messages, outputs, parameters)


def sent(audio, sample_rate=RATE):
    """Samples, lengths and rate of a request."""
    made = request(audio, sample_rate)
    samples, lengths = (np.frombuffer(raw, kind) for raw, kind in zip(made.raw_input_contents, "fi", strict=False))
    return samples, lengths.tolist(), made.parameters["sample_rate"].int64_param


class WithArray:
    def __array__(self, dtype=None, copy=None):
        return TONE


class WithInterface:
    __array_interface__ = TONE.__array_interface__


class WithPack:
    def __dlpack__(self, **options):
        return TONE.__dlpack__()

    def __dlpack_device__(self):
        return TONE.__dlpack_device__()


class OnDevice:
    __cuda_array_interface__: dict = {}  # noqa: RUF012

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def get(self):
        return TONE


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("two\nlines")


read_only = TONE.copy()
read_only.flags.writeable = False

TAKEN = {
    "float32": TONE,
    "float64": TONE.astype(np.float64),
    "longdouble": TONE.astype(np.longdouble),
    "float16": TONE.astype(np.float16),
    "big endian": TONE.astype(">f4"),
    "int16": INT16,
    "big endian int16": INT16.astype(">i2"),
    "int32": INT16.astype(np.int32) << 16,
    "int8": (TONE * 127).astype(np.int8),
    "uint8": (TONE * 127 + 128).astype(np.uint8),
    "object": TONE.astype(object),
    "steps": np.repeat(TONE, 2)[::2],
    "read only": read_only,
    "column": TONE[:, None],
    "row": TONE[None],
    "batch": TONE[None, None],
    "stereo": np.stack([TONE, TONE], axis=1),
    "stereo in rows": np.stack([TONE, -TONE]),
    "masked": np.ma.masked_array(TONE),
    "torch": torch.from_numpy(TONE),
    "torch with gradients": torch.from_numpy(TONE).requires_grad_(),
    "torch in rows": torch.from_numpy(np.stack([TONE, TONE])),
    "torch bfloat16": torch.from_numpy(TONE).bfloat16(),
    "torch half": torch.from_numpy(TONE).half(),
    "torch int16": torch.from_numpy(INT16),
    "list": TONE.tolist(),
    "tuple": tuple(TONE.tolist()),
    "list of numpy numbers": list(TONE),
    "list of rows": [[value] for value in TONE.tolist()],
    "array h": array.array("h", INT16.tolist()),
    "array f": array.array("f", TONE.tolist()),
    "memoryview": memoryview(TONE),
    "__array__": WithArray(),
    "__array_interface__": WithInterface(),
    "__dlpack__": WithPack(),
    "on a device": OnDevice(),
    "samples and rate": (TONE, RATE),
    "rate and samples": (RATE, INT16),
    "torchaudio": (torch.from_numpy(TONE)[None], RATE),
    "data set": {"array": TONE, "sampling_rate": RATE, "path": None},
    "pipeline": {"raw": TONE, "sampling_rate": RATE},
    "waveform": {"waveform": torch.from_numpy(TONE)[None], "sample_rate": RATE},
    "bytes": written(),
    "bytearray": bytearray(written()),
    "memoryview of bytes": memoryview(written(kind="FLAC")),
    "file": io.BytesIO(written()),
    "one clip": [TONE],
    "object of arrays": np.array([TONE, None], dtype=object)[:1],
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_sound_is_sent(name):
    samples, lengths, rate = sent(TAKEN[name])
    assert (rate, lengths) == (RATE, [SAMPLES])
    assert np.abs(samples - TONE).max() < 0.02


REFUSED = {
    "int64": TONE.astype(np.int64),
    "uint16": INT16.astype(np.uint16),
    "bool": TONE > 0,
    "complex": TONE.astype(complex),
    "torch complex": torch.zeros(SAMPLES, dtype=torch.complex64),
    "object of whole numbers": INT16.astype(object),
    "object of nothing": np.array([None] * SAMPLES),
    "strings": np.array(["a"] * SAMPLES),
    "dates": np.zeros(SAMPLES, "datetime64[s]"),
    "records": np.zeros(SAMPLES, "f4,f4"),
    "narrow int32": INT16.astype(np.int32),
    "int16 as floats": TONE * 32767,
    "int8 as floats": TONE * 127,
    "too much for float32": TONE.astype(np.float64) * 1e300,
    "nan": np.full(SAMPLES, np.nan),
    "no axis": np.float32(1),
    "no axis of torch": torch.tensor(1.0),
    "empty": np.zeros(0, np.float32),
    "empty clip": [np.zeros(0, np.float32)],
    "short": TONE[:639],
    "not clear": np.zeros((2, 5), np.float32),
    "not clear and long": np.zeros((700, 800), np.float32),
    "three axes": np.zeros((2, 2, 900), np.float32),
    "masked": np.ma.masked_array(TONE, TONE > 0.29),
    "whole numbers": INT16.tolist(),
    "one number": 5,
    "set": {0.1, 0.2},
    "generator": (value for value in TONE),
    "mapping": {"data": TONE},
    "raw bytes": INT16.tobytes(),
    "no bytes": b"",
    "file of text": io.StringIO("x"),
    "empty file": io.BytesIO(),
    "text that is no UTF-8": io.TextIOWrapper(io.BytesIO(b"RIFF\xff\x83"), "utf-8"),
    "closed file": closed(io.BytesIO(written())),
    "file to write": io.BufferedWriter(io.BytesIO()),
    "damaged gzip": gzip.GzipFile(fileobj=io.BytesIO(b"RIFF")),
    "decoder": soundfile.SoundFile(io.BytesIO(written())),
    "folder": pathlib.Path("/"),
    "no file": "http://none/x.wav",
    "object": object(),
    "class": np.ndarray,
    "broken": Broken(),
    "nested": [[TONE, [TONE]]],
    "pair with no rate": (TONE, 0.5),
    "pair with a silly rate": (TONE, 2**70),
    "sparse": torch.from_numpy(TONE).to_sparse(),
    "meta": torch.zeros(SAMPLES, device="meta"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_is_refused(name):
    with pytest.raises(ChatError) as caught:
        request(REFUSED[name])
    assert caught.value.field in ("audio", "audio-path", "sample_rate") and "\n" not in str(caught.value)


def test_clips_of_a_conversation(tmp_path):
    soundfile.write(tmp_path / "x.wav", TONE, RATE)
    clips = [TONE, INT16, tmp_path / "x.wav", str(tmp_path / "x.wav"), written(), collections.deque(TONE.tolist())]
    samples, lengths, rate = sent(clips)
    assert (lengths, rate, samples.size) == ([SAMPLES] * 6, RATE, 6 * SAMPLES)
    assert sent((TONE, TONE[:1000]))[1] == [SAMPLES, 1000]


def test_clips_of_several_rates_are_sent_at_the_highest():
    samples, lengths, rate = sent([(TONE, RATE), (8000, INT16)], 48_000)
    assert (lengths, rate, samples.size) == ([SAMPLES, 2 * SAMPLES], RATE, 3 * SAMPLES)


def test_a_file_that_was_just_written_is_read_from_its_beginning():
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format="WAV")
    assert sent(file)[1] == [SAMPLES]


DTYPES = ("?", "b", "B", "h", ">h", "H", "i", "I", "q", "Q", "e", "f", ">f", "d", "g", "F", "D", "O", "S2", "U2",
          "M8[s]", "m8[s]", "V3", "f,i")  # fmt: skip


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.lists(st.integers(0, 900), max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_array_is_sent_or_refused(seed, dtype, shape):
    shape = [size if at == 0 else min(size, 40) for at, size in enumerate(shape)]
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    value = np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8)
    value = np.zeros(shape, object) if dtype == "O" else value.view(kind).reshape(shape)
    try:
        samples, lengths, _ = sent(value)
    except ChatError as error:
        assert error.field == "audio"
    else:
        assert sum(lengths) == samples.size and np.isfinite(samples).all() and np.abs(samples).max() <= 8


WHOLE = (16_000, 16_000.0, np.int32(16_000), np.float32(16_000), np.uint64(16_000), Decimal(16_000), Fraction(16_000),
         np.array(16_000), torch.tensor(16_000), "16000")  # fmt: skip
NO_RATE = (None, True, "fast", 44_100.5, math.nan, math.inf, -1, 0, 2**70, -(2**70), 10**5000, Decimal("NaN"),
           Decimal("1e999999"), Fraction(1, 3), 1j, [1], b"1", object(), np.zeros(2))  # fmt: skip


@pytest.mark.parametrize("rate", WHOLE, ids=repr)
def test_rates_of_any_type(rate):
    assert sent(TONE, rate)[2] == 16_000


@pytest.mark.parametrize("rate", NO_RATE, ids=lambda rate: type(rate).__name__)
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(ChatError, match=r"^INVALID_ARG: "):
        request(TONE, rate)


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.float64(3), Decimal(3), Fraction(3), np.array(3), "3"])
def test_whole_numbers_of_any_type(value):
    slot = request(max_tokens=value).parameters["max_tokens"]
    assert slot.int64_param == 3 or slot.string_param == "3"


def test_members_of_enumerations_are_their_values():
    assert request(mode=Mode.TEXT).parameters["mode"].string_param == "s2t"


@pytest.mark.parametrize("value", [0.5, np.float16(0.5), Decimal("0.5"), Fraction(1, 2), torch.tensor(0.5)])
def test_broken_numbers_of_any_type(value):
    assert request(top_p=value).parameters["top_p"].string_param == "0.5"


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**63, 2**70, -(2**70), 10**5000, Decimal("sNaN"), 1j, [1], b"x",
                                   object(), np.zeros(2), {}, Decimal("1e999999"), Fraction(10**400, 3)],
                         ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_is_no_parameter_is_refused(value):
    with pytest.raises(ChatError, match=r"^INVALID_ARG: seed: "):
        request(seed=value)


@pytest.mark.parametrize("timeout", [math.nan, -1, "5", True, [1], Decimal("NaN"), object(), 1j])
def test_a_timeout_that_is_none_is_refused_by_both_clients(timeout):
    async def ask():
        async with AsyncChatClient("127.0.0.1:1") as chat:
            await chat.ask(text="x", timeout=timeout)

    with ChatClient("127.0.0.1:1") as chat, pytest.raises(ChatError, match=r"^INVALID_ARG: timeout: "):
        chat.stream(text="x", timeout=timeout)
    with pytest.raises(ChatError, match=r"^INVALID_ARG: timeout: "):
        asyncio.run(ask())


@pytest.mark.parametrize("timeout", [2**70, 1e300, math.inf, np.float32(0.2), Decimal("0.2"), Fraction(1, 5), 0])
def test_any_number_of_seconds_is_a_timeout(timeout):
    with (
        ChatClient("127.0.0.1:1", NO_RETRY) as chat,
        pytest.raises(ChatError, match=r"^(UNAVAILABLE|DEADLINE_EXCEEDED): "),
    ):
        chat.ask(text="x", timeout=timeout)


@pytest.mark.parametrize("outputs", ["text", 5, [5], [["text"]], [np.zeros(2)], {"text": 1}, ["sound"]])
def test_outputs_that_are_none(outputs):
    with pytest.raises(ChatError, match=r"^INVALID_ARG: outputs: "):
        request(outputs=outputs)


TURN = {"role": "user", "content": "hi"}


class Pydantic:
    def model_dump(self):
        return {**TURN, "tool_calls": None}


@dataclasses.dataclass
class Turn:
    role: str = "user"
    content: str = "hi"


def document(messages):
    return request(text=None, messages=messages).raw_input_contents[0][4:].decode()


@pytest.mark.parametrize("turn", [TURN, Pydantic(), Turn(), collections.UserDict(TURN)])
def test_histories_of_any_kind(turn):
    assert '"role": "user", "content": "hi"' in document([turn])
    assert document((turn,)) == document([turn]) == document(iter([turn]))


loop: list = []
loop.append(loop)


@pytest.mark.parametrize("messages", [5, b"[]", TURN, loop, [{1, 2}], [{"content": TONE}], [{"content": b"x"}],
                                      [{"content": math.nan}], [Broken()], [object()], [{"content": "\ud800"}],
                                      [torch.zeros(2)], [Pydantic]],
                         ids=lambda value: type(value).__name__)  # fmt: skip
def test_histories_that_cannot_be_written(messages):
    with pytest.raises(ChatError, match=r"^INVALID_ARG: messages: "):
        request(messages=messages)
