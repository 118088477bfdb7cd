"""Whatever a client sends, parsing gives a value or a typed error; what a user writes never becomes control."""

import json
import unicodedata

import chat_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import ChatError
from client.request import make_request
from runtime.errors import InvalidRequest, client_name
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS, PromptBuilder
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.requests.limits import RequestLimits
from runtime.requests.messages import Message, parse_messages
from runtime.requests.parse import PARAMETERS, parse_parameters, read_messages, typed_values
from tests.endurance.outcome import typed
from tests.endurance.strategies import DOCUMENTS, NEAR, UNKNOWN, VALUES
from tests.endurance.texts import spelled, texts

many = settings(max_examples=150, deadline=None)
few = settings(max_examples=60, deadline=None)
FEATURES = chat_data.config().features
LIMITS = RequestLimits().for_model(4096, 5.0, 300.0)
# Ids of the tokens that were added to the checkpoint's vocabulary, special or not.
CONTROL = frozenset(
    token["id"] for token in json.loads((chat_data.CHECKPOINT / "tokenizer.json").read_text())["added_tokens"]
)
INTEGERS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(chat_data.CHECKPOINT)


def value_or_typed_error(make):
    try:
        return make()
    except InvalidRequest as error:
        assert typed(str(error)), str(error)
        assert str(error).encode(), "can be sent"
        return None


@many
@given(DOCUMENTS, st.integers(0, 3))
def test_messages(document, clips):
    found = value_or_typed_error(lambda: parse_messages(document, clips))
    if found is not None:
        assert sum(part is None for message in found for part in message.parts) == clips
        assert all(part.encode() is not None for message in found for part in message.parts if part is not None)


NAMES = st.one_of(st.sampled_from(sorted(PARAMETERS)), UNKNOWN)
ANY = st.one_of(VALUES, *NEAR.values())


@many
@given(st.dictionaries(NAMES, ANY, max_size=5))
def test_parameters(parameters):
    found = value_or_typed_error(lambda: typed_values(parameters))
    if found is not None:
        assert all(type(value) is PARAMETERS[name] for name, value in found.items())


@many
@given(st.dictionaries(NAMES, ANY, max_size=4), st.binary(max_size=9))
def test_requests(parameters, text):
    arrays = {"text": np.array([text], np.object_)}

    def read():
        return read_messages(arrays, parse_parameters(parameters, 16_000, LIMITS), 0, SYSTEM_PROMPTS, LIMITS)

    found = value_or_typed_error(read)
    if found is not None:
        assert found[-1].parts == (text.decode(),)


@many
@given(st.lists(st.floats(width=32), max_size=6), st.one_of(st.none(), INTEGERS), st.integers(-5, 200_000))
def test_clips(samples, lengths, rate):
    audio = np.array(samples, np.float32)
    wanted = None if lengths is None else np.array(lengths, np.int32)
    clips = value_or_typed_error(lambda: split_clips(audio, wanted))
    if clips is not None:
        assert sum(map(len, clips)) == len(audio) and all(len(clip) for clip in clips)
        value_or_typed_error(lambda: to_model_rate(clips, rate, FEATURES))


@many
@given(spelled())
def test_text_comes_back_without_control_ids(tokenizer, text):
    texts, stream = tokenizer.stand_ins(), tokenizer.stream()
    ids = tokenizer.encode(texts.hide(text), texts)
    assert not CONTROL & set(ids)
    assert "".join(map(stream.push, ids)) + stream.finish() == unicodedata.normalize("NFC", text)


@few
@given(st.lists(st.tuples(spelled(), texts()), min_size=1, max_size=3))
def test_control_ids_stand_only_where_the_template_puts_them(tokenizer, turns):
    builder = PromptBuilder(chat_data.config(), tokenizer)

    def controls(pairs):
        messages = [Message("system", ("x",))]
        for said, answered in pairs:
            messages += [Message("user", (None, said)), Message("assistant", (answered,))]
        ids = builder.build(messages[:-1], [3200] * len(pairs))
        return [id_ for id_ in ids.tolist() if id_ in CONTROL]

    assert controls(turns) == controls([("x", "x")] * len(turns))


@given(st.text(max_size=100))
def test_names_of_clients_are_fields(name):
    assert typed(str(InvalidRequest(client_name(name), "is wrong", "mend it")))


def test_the_client_refuses_what_triton_would_cut():
    with pytest.raises(ChatError, match="system: holds a NUL"):
        make_request(None, 16_000, "hi", None, None, {"system": "a\x00b"})


def test_sound_that_would_overflow_is_refused():
    assert len(split_clips(np.full(9, -8, np.float32), None)) == 1
    for loud in (8.1, 9600.0, -1e30, 3.4e38):
        with pytest.raises(InvalidRequest, match="audio: holds samples beyond 8; scale them"):
            split_clips(np.array([0.0, loud], np.float32), None)
