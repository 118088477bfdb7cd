"""Nothing that a client sends is in the log, nor in an answer to somebody else."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from faulty import CLIP, attempt, ordered
from tritonclient.grpc import service_pb2_grpc

from client.request import make_request

SECRET = "xylophon-4711"
SAMPLE = 0.12345679  # a value that a printed array would show
MARKED = np.tile(np.float32(SAMPLE), 8000)
TURNS = json.dumps([{"role": "user", "content": SECRET}, {"role": SECRET, "content": "x"}])

REQUESTS = {
    "good": {"text": SECRET, "system": SECRET, "audio": MARKED, "mode": "s2t", "max_tokens": 8},
    "good messages": {"messages": json.dumps([{"role": "user", "content": SECRET}]), "mode": "s2t", "max_tokens": 8},
    "unknown parameter": {"text": "x", SECRET: SECRET},
    "bad value": {"text": "x", "temperature": SECRET},
    "bad voice": {"text": "x", "voice": SECRET},
    "bad mode": {"text": "x", "mode": SECRET},
    "bad role": {"messages": TURNS},
    "bad JSON": {"messages": f'[{{"role": "{SECRET}'},
    "no sound": {"audio": np.array([np.nan, SAMPLE], np.float32), "text": SECRET},
    "header as parameter": {"text": SECRET, "x-api-key": SECRET, "mode": "s2t", "max_tokens": 8},
}
FAULTS = [
    ("log_mel", "raise"), ("audio_encoder", "raise"), ("flow", "raise"), ("vocoder", "raise"),
    ("fun_audio_chat", "response raises"),
]  # fmt: skip


def check(server, others):
    log = server.log()
    for mark in (SECRET, str(SAMPLE)[:8]):
        assert mark not in log
        assert not any(mark in str(outcome.error) for outcome in others)


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_leave_no_trace(faulty, name):
    bystander = {"audio": CLIP, "voice": "nobody"}
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(attempt, faulty.url, **bystander)
        outcome = attempt(faulty.url, **REQUESTS[name])
        assert (outcome.error is None) == (name.startswith("good") or name == "header as parameter"), outcome.error
        check(faulty, [other.result()])


@pytest.mark.parametrize(("model", "mode"), FAULTS)
def test_faults_leave_no_trace(faulty, record, model, mode):
    request = {"text": SECRET, "system": SECRET, "audio": MARKED, "max_tokens": 30}
    with ordered(faulty, model, mode=mode):
        outcomes = [attempt(faulty.url, **request)]
    assert outcomes[0].error is not None
    check(faulty, outcomes)
    assert "ValueError" in faulty.log() or "IndexError" in faulty.log(), "kind and place of the fault are there"
    record.add("secret words and samples in good, bad and failing requests", "none in the server's log")


def test_headers_and_undecodable_text(faulty):
    request = make_request(None, 16_000, "x", None, None, {"mode": "s2t", "max_tokens": 4})
    request.raw_input_contents[0] = len(b"\xff" + SECRET.encode()).to_bytes(4, "little") + b"\xff" + SECRET.encode()
    with grpc.insecure_channel(faulty.url) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter((request,)), timeout=20, metadata=(("x-api-key", SECRET), ("authorization", f"Bearer {SECRET}"))
        )
        (response,) = list(call)
    assert "INVALID_ARG: text" in response.error_message and SECRET not in response.error_message
    check(faulty, [])
