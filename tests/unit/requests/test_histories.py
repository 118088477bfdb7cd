"""Histories as SDKs of OpenAI dump them: what is nothing counts for nothing, what would be lost is refused by name."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidRequest, client_name
from runtime.requests.messages import Message, parse_messages

DUMP = Path(__file__).parents[1] / "histories" / "sdk_dump.json"
many = settings(max_examples=150, deadline=None)
USER = {"role": "user", "content": "Go on."}


def parse(*turns):
    return parse_messages(json.dumps(turns), 0)


def refused(*turns):
    with pytest.raises(InvalidRequest) as caught:
        parse(*turns)
    return caught.value.field


def test_the_dump_of_an_sdk():
    assert parse_messages(DUMP.read_text(), 0) == [
        Message("user", ("Hello",)),
        Message("assistant", ("Yes.",)),
        Message("user", ("Go on.",)),
    ]


def test_parts_of_a_dump():
    parts = [{"type": "text", "text": "a", "cache_control": None, "annotations": []}, {"type": "audio", "id": None}]
    document = json.dumps([{"role": "user", "content": parts, "name": None}])
    assert parse_messages(document, 1) == [Message("user", ("a", None))]


def test_a_tools_message_says_which_call_it_answers():
    result = {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "rain"}
    assert parse(USER, result)[1] == Message("tool", ("rain",))
    assert refused(USER, result | {"tool_call_id": {"id": 1}}) == "messages[1].tool_call_id"
    assert refused(USER | {"tool_call_id": "call_1"}) == "messages[0].tool_call_id"
    assert refused(USER | {"name": "Ann"}) == "messages[0].name", "the model would not know who speaks"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tool_calls", [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        ("function_call", {"name": "f", "arguments": "{}"}),
        ("audio", {"id": "audio_1"}),
        ("refusal", "I cannot."),
        ("annotations", [{"type": "url_citation"}]),
        ("reasoning_content", "Well."),
        ("cache_control", {"type": "ephemeral"}),
        ("weight", 0),
        ("prefix", False),
    ],
)
def test_values_that_would_be_lost_are_refused_by_name(key, value):
    answer = {"role": "assistant", "content": "Yes."}
    assert refused(answer | {key: value}, USER) == f"messages[0].{key}"
    part = {"type": "text", "text": "Yes."}
    assert refused({"role": "user", "content": [part | {key: value}]}) == f"messages[0].content[0].{key}"
    assert parse(answer | {key: None}, USER)[0] == Message("assistant", ("Yes.",))


VALUE = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(min_size=1, max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2), st.dictionaries(st.text(max_size=4), inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)
KEYS = st.text(max_size=12).filter(lambda key: key not in ("role", "content", "type", "text"))


@many
@given(st.dictionaries(KEYS, st.sampled_from((None, "", [], {})), max_size=4))
def test_any_keys_with_nothing_count_for_nothing(extra):
    assert parse(USER | extra) == [Message("user", ("Go on.",))]
    assert parse({"role": "user", "content": [{"type": "text", "text": "hi"} | extra]}) == [Message("user", ("hi",))]


@many
@given(KEYS, VALUE)
def test_any_key_with_a_value_is_refused_by_name(key, value):
    assert refused(USER | {key: value}) == f"messages[0].{client_name(key)}"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ('[{"role": "user", "content": null}]', "messages[0].content"),
        ('[{"role": "assistant", "content": null, "tool_calls": [{}]}]', "messages[0].tool_calls"),
        ('[{"role": "user", "content": "a", "content": "b"}]', "messages"),
        ('[{"role": "developer", "content": "a"}]', "messages[0].role"),
        ('[{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]', "messages[0].content[0]"),
        ('[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]', "messages[0].content[0]"),
        ('[{"role": "user", "content": [{"type": "text", "text": null}]}]', "messages[0].content[0]"),
    ],
)
def test_what_is_not_understood_is_named(document, field):
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(document, 0)
    assert caught.value.field == field
