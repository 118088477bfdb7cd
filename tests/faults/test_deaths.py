"""What dies or hangs is noticed, its clients get a typed error in time, and the server comes back by itself."""

import os
import re
import signal
import threading
import time

import pytest
from awaiting import until
from faulty import ENDLESS, MODELS, QUICK, SPOKEN, attempt, faulty_copy, ordered
from harness import gauges

from client import ServerError, ServerLost
from client.connection import KeepAlive
from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children
from runtime.supervisor.watch import is_stub, model_of

TOLD_S = 40.0  # within this time a client in flight knows; a host that is gone takes KeepAlive's 20 to 30 s
BACK_S = 180.0  # a start on a machine that others use too


def stub_of(server, model):
    (triton,) = children(server.pid)
    if model == "tritonserver":
        return triton.pid
    (stub,) = [child for child in children(triton.pid) if is_stub(child) and model_of(child) == model]
    return stub.pid


def in_flight(server, count=2):
    """Answers that would go on for long; their outcomes are there after ``join``."""
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(attempt(server.url, **ENDLESS))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def hit(server, record, fault, do, baseline, told_s=TOLD_S):
    """Does it to a speaking server; checks what its clients are told, and that it answers again as before.

    ``do``: None where the fault itself waits for the streams; the time then counts from their beginning.
    """
    before, began = server.log().count("\nready: "), time.monotonic()
    threads, outcomes = in_flight(server)
    if do is not None:
        until(lambda: gauges(server)["live_streams"] == len(threads), 60.0)
        began = time.monotonic()
        do()
    for thread in threads:
        thread.join(told_s)
    told = time.monotonic() - began
    errors = [outcome.error for outcome in outcomes]
    assert len(errors) == len(threads), f"clients still wait after {told:.0f} s"
    assert all(isinstance(error, ServerLost) or _is_typed(error) for error in errors), errors
    server.wait_ready(BACK_S, announcements=before + 1)
    while (outcome := attempt(server.url, **SPOKEN)).error is not None:
        assert time.monotonic() - began < BACK_S, outcome.error
    back = time.monotonic() - began - outcome.seconds + outcome.answer.first_s
    assert outcome.is_golden(baseline)
    kinds = sorted({"ServerLost" if isinstance(e, ServerLost) else f"{e.code}: {e.field}" for e in errors})
    record.add(
        fault,
        f"clients in flight: {', '.join(kinds)}; the supervisor restarted the server",
        back,
        told_s=round(told, 2),
    )


def _is_typed(error):
    return isinstance(error, ServerError) and error.code == "INTERNAL"


def test_a_killed_stub_costs_its_clients_a_typed_error_and_the_server_comes_back(faulty, baseline, record):
    hit(faulty, record, "kill -9 of vocoder", lambda: os.kill(stub_of(faulty, "vocoder"), signal.SIGKILL), baseline)


@pytest.mark.long
@pytest.mark.parametrize("model", [*(m for m in MODELS if m != "vocoder"), "tritonserver"])
def test_every_process_may_be_killed(faulty, baseline, record, model):
    hit(faulty, record, f"kill -9 of {model}", lambda: os.kill(stub_of(faulty, model), signal.SIGKILL), baseline)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["step raises", "step hangs", "asyncio thread ends", "asyncio thread hangs"])
def test_a_dead_or_hanging_thread_of_the_public_model(faulty, baseline, record, mode):
    with ordered(faulty, PUBLIC_MODEL, mode=mode):
        hit(faulty, record, f"frame loop: {mode}", None, baseline)


@pytest.mark.long
def test_an_end_that_memory_lost(faulty, baseline, record):
    """Triton closes a sender before it looks for room: nothing but a restart can end that stream."""
    refused = []
    wrong = SPOKEN | {"max_tokens": 0}
    thread = threading.Thread(target=lambda: refused.append(attempt(faulty.url, **wrong)))
    with ordered(faulty, PUBLIC_MODEL, mode="end lost"):
        hit(faulty, record, "shared memory lost the end of an answer", thread.start, baseline)
    thread.join(TOLD_S)
    assert isinstance(refused[0].error, ServerLost)


def freeze(server, model):
    os.kill(stub_of(server, model), signal.SIGSTOP)


@pytest.mark.long
@pytest.mark.parametrize("model", ["flow", "vocoder", PUBLIC_MODEL])
def test_a_hanging_process_is_noticed(faulty, baseline, record, model):
    hit(faulty, record, f"SIGSTOP of {model}", lambda: freeze(faulty, model), baseline)


@pytest.mark.long
@pytest.mark.parametrize("model", ["log_mel", "audio_encoder"])
def test_a_hanging_encoder_is_noticed_by_those_that_wait_for_it(faulty, baseline, record, model):
    before, began = faulty.log().count("\nready: "), time.monotonic()
    freeze(faulty, model)
    outcome = attempt(faulty.url, **SPOKEN)
    assert outcome.error.code == "INTERNAL" and "is not healthy" in str(outcome.error)
    faulty.wait_ready(BACK_S, announcements=before + 1)
    again = attempt(faulty.url, **SPOKEN)
    assert again.is_golden(baseline)
    record.add(
        f"SIGSTOP of {model}",
        f"clients in flight: INTERNAL: {outcome.error.field}; the supervisor restarted the server",
        time.monotonic() - began - again.seconds + again.answer.first_s,
        told_s=round(outcome.seconds, 2),
    )


@pytest.mark.long
def test_a_server_that_hangs_is_noticed_by_client_and_supervisor(built, tmp_path, baseline, record):
    """The heartbeat is long, so that the client's keep-alive and not the restart ends the wait."""
    out = faulty_copy(built, tmp_path / "cpu")
    with ServerProcess(out, options=(*QUICK, "--heartbeat=25")) as server:
        patience = KeepAlive()
        hit(
            server,
            record,
            "SIGSTOP of tritonserver, --heartbeat 25",
            lambda: freeze(server, "tritonserver"),
            baseline,
            told_s=(patience.every_ms + patience.timeout_ms) / 1000 + 5,
        )
        # The loop's thread may be the first to stand still: it sends to a server that takes nothing.
        assert re.search("tritonserver gave no answer for|heartbeat of the frame loop stood still for", server.log())
