"""Memory that runs out, and clients that let it."""

import multiprocessing
import os
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from awaiting import until
from faulty import ENDLESS, QUICK, SPOKEN, attempt, faulty_copy, ordered
from harness import gauges
from small_memory import SmallMemoryServer, need_namespaces

from client import ChatClient, ServerError
from runtime.supervisor.process import children, members
from tests.endurance.watching import still_held

STALLED = 8
UNSENT = "a last response could not be sent"  # in the log, once per response
LONG = ENDLESS | {"max_tokens": 300}  # a minute of speech
SAMPLES_PER_TOKEN, SAMPLE_BYTES, OTHER_BYTES = 5 * 960, 4, 1000  # a response carries a little more than its samples
WIRE_BYTES = 2  # times a sample is held: as Triton's tensor, and as the message that waits to be written


def test_a_full_shared_memory_refuses_and_recovers(built, tmp_path, record):
    need_namespaces()
    minute = {"audio": np.zeros(60 * 16_000, np.float32), "max_tokens": 20}
    with SmallMemoryServer(faulty_copy(built, tmp_path / "cpu"), options=QUICK) as server:
        baseline = attempt(server.url, **SPOKEN).answer
        with server.filled() as taken, ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda request: attempt(server.url, **request), [SPOKEN, minute] * 4))
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert len(errors) >= 4, "a minute of sound does not fit"
        assert all(isinstance(e, ServerError) and e.code == "UNAVAILABLE" and "memory" in str(e) for e in errors)
        assert attempt(server.url, **SPOKEN).is_golden(baseline), "with memory again, without a restart"
        assert still_held(server) == {}
        assert server.log().count("\nready: ") == 1
    record.add(
        "full /dev/shm (a tmpfs of 64 MiB filled to the last byte), 8 requests",
        f"{len(errors)} ended UNAVAILABLE: shared memory is full, the others were answered; no restart",
        max(outcome.seconds for outcome in outcomes),
        taken_mb=taken >> 20,
    )


def test_a_last_response_without_memory_is_sent_later(faulty, baseline, record):
    unsent, threads = faulty.log().count(UNSENT), []
    with ordered(faulty, "fun_audio_chat", mode="no memory"):
        outcomes = []
        threads = [threading.Thread(target=lambda: outcomes.append(attempt(faulty.url, **SPOKEN))) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: faulty.log().count(UNSENT) == unsent + 3)
        assert not outcomes, "not even an error can be sent"
    began = time.monotonic()
    for thread in threads:
        thread.join(60)
    assert [outcome.error.code for outcome in outcomes] == ["UNAVAILABLE"] * 3, [str(o.error) for o in outcomes]
    assert attempt(faulty.url, **SPOKEN).is_golden(baseline)
    assert still_held(faulty) == {}
    record.add(
        "no shared memory for any response, for a while",
        "the errors were sent as soon as there was room: UNAVAILABLE: shared memory is full",
        time.monotonic() - began,
    )


def stall(url, ready):
    """Opens a stream, reads one response and then nothing: stopped by its parent."""
    with ChatClient(url) as client:
        stream = client.stream(timeout=600, **LONG)
        next(stream)
        ready.set()
        time.sleep(600)


def resident(server):
    """Bytes of tritonserver and its stubs, shared pages counted once."""
    (triton,) = children(server.pid)
    return sum(_pss(pid) for pid in members(triton.pid))


def _pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def pace(url, runs=5):
    """Median first sound and median length of a lone answer that is read."""
    firsts, totals = [], []
    for _ in range(runs):
        outcome = attempt(url, **SPOKEN)
        firsts.append(outcome.answer.stats["first_audio_ms"])
        totals.append(outcome.seconds)
    return statistics.median(firsts), statistics.median(totals)


@pytest.mark.long
def test_stalled_clients_hold_bounded_memory_and_nobody_waits(faulty, record):
    assert still_held(faulty) == {}
    alone = pace(faulty.url)
    held, beside = [], alone
    for turn in range(2):  # in the second turn what the first gave back is used again
        base = resident(faulty)
        spawn = multiprocessing.get_context("spawn")
        clients = []
        for _ in range(STALLED):
            ready = spawn.Event()
            process = spawn.Process(target=stall, args=(faulty.url, ready), daemon=True)
            process.start()
            assert ready.wait(60)
            os.kill(process.pid, signal.SIGSTOP)
            clients.append(process)
        deadline = time.monotonic() + 240
        while gauges(faulty)["live_requests"]:  # the answers are made, though nobody reads them
            assert time.monotonic() < deadline
            time.sleep(0.5)
        full = resident(faulty)
        beside = pace(faulty.url) if not turn else beside
        for process in clients:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        time.sleep(3)
        held.append((base, full, resident(faulty)))
    bound = LONG["max_tokens"] * (SAMPLES_PER_TOKEN * SAMPLE_BYTES * WIRE_BYTES + OTHER_BYTES)
    each = [(full - base) / STALLED for base, full, _ in held]
    assert max(each) <= bound
    assert held[1][1] <= held[0][1] * 1.1, "memory of clients that went away is used again"
    assert beside[0] <= 3 * alone[0] + 50 and beside[1] <= 3 * alone[1], (alone, beside)
    record.add(
        f"{STALLED} clients that never read (SIGSTOP), answers of {LONG['max_tokens']} tokens, twice",
        "the answers were made and kept; another client was served as if alone",
        None,
        held_mb_each=[round(value / 1e6, 1) for value in each],
        bound_mb_each=round(bound / 1e6, 1),
        resident_mb=[[round(value / 1e6) for value in turn] for turn in held],
        first_audio_ms_alone_and_beside=[round(alone[0]), round(beside[0])],
        answer_s_alone_and_beside=[round(alone[1], 2), round(beside[1], 2)],
    )
