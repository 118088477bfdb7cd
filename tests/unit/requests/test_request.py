"""Requests: what is understood, and the field that each error names."""

import json

import numpy as np
import pytest

from client.protocol.requests import Priority
from runtime.checkpoint.features import FeatureConfig
from runtime.errors import InvalidRequest
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.requests.limits import RequestLimits
from runtime.requests.messages import Message, parse_messages
from runtime.requests.parse import (
    answer_params,
    parse_parameters,
    read_messages,
    typed_values,
)

CLIP = np.zeros(1600, np.float32)
FEATURES = FeatureConfig(sample_rate=16000, num_mel_bins=128, n_fft=400, hop_length=160, n_samples=480_000)


def text(value):
    return {"text": np.array([value.encode()], np.object_)}


def messages(*items):
    return {"messages": np.array([json.dumps(items).encode()], np.object_)}


LIMITS = RequestLimits().for_model(4096, 5.0, 300.0)
ROOM = 100


def parse(parameters):
    return parse_parameters(parameters, 16000, LIMITS)


def conversation(arrays, parameters=None, clips=0):
    return read_messages(arrays, parse(parameters or {}), clips, SYSTEM_PROMPTS, LIMITS)


def test_defaults_are_the_authors():
    params = parse({}).answer
    sampling = params.sampling
    assert (params.mode, params.max_tokens, params.force_audio_start) == ("s2s", 2048, True)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty) == (0.8, 0.9, 0, 1.2)
    assert sampling.text_greedy and not sampling.greedy
    assert conversation({}, clips=1) == [Message("system", (SYSTEM_PROMPTS["s2s"],)), Message("user", (None,))]


@pytest.mark.parametrize(
    ("warmup", "parameters", "expected"),
    [(None, {}, ROOM), (None, {"max_tokens": 2048}, 2048), (np.array([800], np.int32), {}, 800)],
)
def test_only_a_length_that_was_not_asked_for_gives_way(warmup, parameters, expected):
    assert answer_params(parse(parameters), warmup, ROOM).max_tokens == expected


def test_warm_ups_are_alike():
    warmup = np.array([8], np.int32)
    assert answer_params(parse({}), warmup, ROOM) == answer_params(parse({}), warmup, ROOM)
    assert answer_params(parse({"seed": 7}), warmup, ROOM).sampling.seed == 7


def test_text_mode_has_its_own_defaults():
    assert not parse({"mode": "s2t"}).answer.force_audio_start
    messages = conversation(text("hello"), {"mode": "s2t"}, 1)
    assert messages[0].parts == (SYSTEM_PROMPTS["s2t"],)
    assert messages[1].parts == (None, "hello")


def test_seeds_are_random_unless_given():
    assert parse({}).answer.sampling.seed != parse({}).answer.sampling.seed
    assert parse({"seed": str(2**62 + 1)}).answer.sampling.seed == 2**62 + 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": "0.5", "top_k": "7", "greedy": "true"}, {"temperature": 0.5, "top_k": 7, "greedy": True}),
        ({"temperature": 1, "top_k": 7.0, "greedy": False}, {"temperature": 1.0, "top_k": 7, "greedy": False}),
        ({"x-api-key": "secret", "triton_enable_empty_final_response": True}, {}),
    ],
)
def test_parameters_arrive_as_numbers_or_strings(given, expected):
    assert typed_values(given) == expected


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"temprature": 1.0}, "temprature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "1e9"}, "max_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"greedy": "perhaps"}, "greedy"),
        ({"mode": "t2s"}, "mode"),
        ({"mode": "t" * 300}, "mode"),
        ({"urgency": "urgent"}, "urgency"),
        ({"sample_rate": 1}, "sample_rate"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_parameters_name_their_field(parameters, field):
    with pytest.raises(InvalidRequest) as caught:
        parse(parameters)
    assert caught.value.field == field and str(caught.value).startswith(f"INVALID_ARG: {field}: ")
    assert len(str(caught.value)) < 300


def test_something_must_be_sent():
    with pytest.raises(InvalidRequest, match=r"audio: .*at least one"):
        conversation({})


def test_messages_replace_text_and_system():
    turn = {"role": "user", "content": "hi"}
    assert conversation(messages(turn)) == [Message("user", ("hi",))]
    with pytest.raises(InvalidRequest, match=r"messages: has \d+ turns, the limit is"):
        conversation(messages(*[turn] * (LIMITS.turns + 1)))
    with pytest.raises(InvalidRequest, match=r"^INVALID_ARG: text: "):
        conversation(messages(turn) | text("and this"))
    with pytest.raises(InvalidRequest, match=r"^INVALID_ARG: system: "):
        conversation(messages(turn), {"system": "Be kind."})


def test_messages_with_parts():
    content = [{"type": "audio"}, {"type": "text", "text": "and now?"}]
    document = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": content}])
    assert parse_messages(document, 1)[1] == Message("user", (None, "and now?"))


@pytest.mark.parametrize(
    ("document", "clips", "field"),
    [
        ("{", 0, "messages"),
        ("[]", 0, "messages"),
        ('"hi"', 0, "messages"),
        ("[" * 100_000, 0, "messages"),
        ('[{"role": "user"}]', 0, "messages[0]"),
        ('[{"role": "robot", "content": "x"}]', 0, "messages[0].role"),
        ('[{"role": "user", "content": 3}]', 0, "messages[0].content"),
        ('[{"role": "user", "content": "x", "name": "y"}]', 0, "messages[0].name"),
        ('[{"role": "user", "content": [{"type": "image"}]}]', 0, "messages[0].content[0]"),
        ('[{"role": "user", "content": [{"type": "text", "text": 1}]}]', 0, "messages[0].content[0]"),
        ('[{"role": "user", "content": [{"type": "audio"}]}]', 0, "messages"),
        ('[{"role": "user", "content": "x"}]', 1, "messages"),
        ('[{"role": "assistant", "content": "x"}]', 0, "messages[0].role"),
    ],
)
def test_malformed_messages_name_the_place(document, clips, field):
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(document, clips)
    assert caught.value.field == field


def test_text_must_be_one_utf8_string():
    with pytest.raises(InvalidRequest, match=r"^INVALID_ARG: text: "):
        conversation({"text": np.array([b"\xff\xfe"], np.object_)})
    with pytest.raises(InvalidRequest, match=r"^INVALID_ARG: text: "):
        conversation({"text": np.array([b"a", b"b"], np.object_)})


@pytest.mark.parametrize("field", ["system", "voice", "text"])
def test_half_characters_are_refused(field):
    """JSON over HTTP can spell them."""
    arrays = {"text": np.array(["a\ud800" if field == "text" else "a"], np.object_)}
    with pytest.raises(InvalidRequest, match=f"^INVALID_ARG: {field}: holds a lone surrogate; send whole characters"):
        conversation(arrays, {} if field == "text" else {field: "a\ud800"})


def test_clips_are_split():
    audio = np.arange(10, dtype=np.float32) / 8
    assert [len(clip) for clip in split_clips(audio, np.array([4, 6], np.int32))] == [4, 6]
    assert np.array_equal(np.concatenate(split_clips(audio, np.array([4, 6], np.int32))), audio)
    assert len(split_clips(audio, None)) == 1 and split_clips(None, None) == []


@pytest.mark.parametrize(
    ("audio", "lengths", "field"),
    [
        (np.full(4, np.nan, np.float32), None, "audio"),
        (np.array([np.inf], np.float32), None, "audio"),
        (np.zeros((2, 2), np.float32), None, "audio"),
        (np.zeros(0, np.float32), None, "audio_lengths"),
        (CLIP, np.array([1, 2]), "audio_lengths"),
        (CLIP, np.array([1600, 0]), "audio_lengths"),
        (CLIP, np.array([1700, -100]), "audio_lengths"),
        (None, np.array([3]), "audio_lengths"),
    ],
)
def test_bad_audio_names_its_field(audio, lengths, field):
    with pytest.raises(InvalidRequest) as caught:
        split_clips(audio, lengths)
    assert caught.value.field == field


def test_audio_is_resampled_and_bounded():
    [clip] = to_model_rate([np.zeros(48_000, np.float32)], 48_000, FEATURES)
    assert len(clip) == 16_000
    with pytest.raises(InvalidRequest, match=r"audio: clip 0 lasts 31\.0 s"):
        to_model_rate([np.zeros(31 * 16_000, np.float32)], 16_000, FEATURES)
    with pytest.raises(InvalidRequest, match="sample_rate"):
        to_model_rate([CLIP], 0, FEATURES)


def test_hops_and_earliest():
    assert parse({}).hops is None
    assert parse({"hops": "20,30"}).hops == (20, 30)
    early = parse({"earliest": "true"}).hops
    assert early is not None and early[0] < 15 and parse({"earliest": False}).hops is None
    with pytest.raises(InvalidRequest, match="earliest: is given beside hops; send one of them"):
        parse({"hops": "25", "earliest": True})
    with pytest.raises(InvalidRequest, match="hops: is '3'"):
        parse({"hops": 3})


def test_urgency_and_rate_have_defaults():
    assert (parse({}).priority, parse({}).sample_rate) == (Priority.INTERACTIVE, 16000)
    given = parse({"urgency": "batch", "max_tokens": "7", "mode": "s2t", "sample_rate": 8000})
    assert (given.priority, given.sample_rate, given.answer.max_tokens) == (Priority.BATCH, 8000, 7)
    assert given.given == {"urgency", "max_tokens", "mode", "sample_rate"} and not given.answer.speaks
    with pytest.raises(InvalidRequest, match="urgency: is 'urgent'; use one of interactive, batch"):
        parse({"urgency": "urgent"})


def test_banned_pairs_are_read_and_bounded():
    def pairs(text):
        return parse({"banned_pairs": text}).answer.sampling.banned_pairs

    assert pairs("411:414") == ((411, 414),) and pairs("1:2,3:4") == ((1, 2), (3, 4))
    for wrong in ("", "411", "1:2,", "1:-2", "1 2", "1:2;3:4", "1:2:3"):
        with pytest.raises(InvalidRequest, match=r"banned_pairs: is .* such as 411:414"):
            pairs(wrong)
    with pytest.raises(InvalidRequest, match="banned_pairs: is 5, outside"):
        pairs(",".join(["1:2"] * 5))
