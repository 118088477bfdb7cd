"""Errors as Triton's responses: each with the code of its own kind."""

import pytest

from client.protocol.errors import MEMORY_FULL
from runtime.errors import InvalidRequest, NotFound
from runtime.tritonserver import backend as pb


class TritonError:
    INVALID_ARG, NOT_FOUND, UNAVAILABLE, INTERNAL = "INVALID_ARG", "NOT_FOUND", "UNAVAILABLE", "INTERNAL"

    def __init__(self, message, code):
        self.message, self.code = message, code


class Backend:
    TritonError = TritonError

    @staticmethod
    def InferenceResponse(error):
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError(f"Failed to increase the {MEMORY_FULL} size"), "UNAVAILABLE"),
        (RuntimeError("a secret"), "INTERNAL"),
        (NotFound("voice", f"{MEMORY_FULL!r} is not known", "use one of a"), "NOT_FOUND"),
        (InvalidRequest("urgency", f"is {MEMORY_FULL!r}", "use one of a"), "INVALID_ARG"),
    ],
)
def test_only_tritons_own_words_mean_a_full_memory(error, code):
    """A typed error quotes what the client sent, which may be the same words."""
    answer = pb.fail(Backend, error)
    assert answer.code == code and answer.message.startswith(f"{code}: ") and "secret" not in answer.message
