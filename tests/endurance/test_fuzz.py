"""A few hundred cases over the whole protocol; `make fuzz` sends thousands."""

import pytest
from harness import check, collect, request_of

from client import ServerError
from tests.endurance.case import Verdict
from tests.endurance.fuzzing import Fuzzer
from tests.endurance.oracle import PromptOracle
from tests.endurance.pool import every_kind, pool

CASES, SEED = 300, 1
ENOUGH = 40  # of each outcome, so that none of them is what everything leads to


def test_every_case_gets_a_clear_error_or_a_correct_answer(server, client, built):
    fuzzer = Fuzzer(server)
    wrong = fuzzer.send(pool(every_kind(PromptOracle(built)), CASES, SEED))
    left = fuzzer.inspect()
    fuzzer.close()
    assert (wrong, left, fuzzer.restarts) == ([], [], 0)
    assert all(fuzzer.counts[verdict] > ENOUGH for verdict in (Verdict.ANSWER, Verdict.TYPED, Verdict.TRITON))
    check("s2s_chirp_0p5s", collect(client, **request_of("s2s_chirp_0p5s")))


SURROGATE = '"\\ud800"'
TORN = {
    "content": (f'[{{"role": "user", "content": {SURROGATE}}}]', "messages[0].content"),
    "part": (
        f'[{{"role": "user", "content": [{{"type": "text", "text": {SURROGATE}}}]}}]',
        "messages[0].content[0].text",
    ),
    "key": (f'[{{"role": "user", "content": "x", {SURROGATE}: 1}}]', "messages[0].?"),
    "role": (f'[{{"role": {SURROGATE}, "content": "x"}}]', "messages[0].role"),
    "colon": ('[{"role": "user", "content": "x", "a: b": 1}]', "messages[0].a? b"),
}


@pytest.mark.parametrize("name", TORN)
def test_what_is_no_text_is_refused_by_name(client, name):
    document, field = TORN[name]
    with pytest.raises(ServerError) as caught:
        collect(client, messages=document, mode="s2t", max_tokens=2)
    assert (caught.value.code, caught.value.field) == ("INVALID_ARG", field)


def test_odd_names_of_parameters_still_give_typed_errors(client):
    for name in ("a: b", ":", "\n", "ö" * 200):
        with pytest.raises(ServerError) as caught:
            collect(client, text="x", **{name: 1})
        assert caught.value.code == "INVALID_ARG" and "is not a parameter; use" in caught.value.message
