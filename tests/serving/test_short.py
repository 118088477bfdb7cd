"""A server whose conversations are shorter than the longest answer: the default length gives way to the prompt."""

import json

import pytest
from faulty import plain_copy

from client import ChatClient, ServerError
from runtime.supervisor.launch import ServerProcess

POSITIONS = 256


@pytest.fixture(scope="module")
def short(triton, built, tmp_path_factory):
    out = tmp_path_factory.mktemp("short") / "built"
    plain_copy(built, out)
    options = json.loads((out / "options.json").read_text("utf-8"))
    options["engine"] |= {"max_positions": POSITIONS, "kv_positions": POSITIONS}
    (out / "options.json").write_text(json.dumps(options), "utf-8")
    with ServerProcess(out, options=("--no-verify",)) as running:
        yield running


def test_a_request_that_names_no_length_gets_what_fits(short):
    with ChatClient(short.url) as client:
        assert client.ask(text="Go on.", seed=7).finish_reason
        with pytest.raises(ServerError, match=f"max_tokens: .* more than the {POSITIONS} positions of this server"):
            client.ask(text="Go on.", max_tokens=POSITIONS)
        with pytest.raises(ServerError, match="INVALID_ARG"):
            client.ask(text="word " * POSITIONS)
