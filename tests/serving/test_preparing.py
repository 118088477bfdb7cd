"""Requests that are being prepared, in process: they cost others nothing, and leave when their clients do."""

import asyncio
import threading
import time

import numpy as np
import pytest
import soxr
from awaiting import until
from test_ends import Ends, in_process, send

from client.protocol.wire import KEY_HEADER
from runtime.errors import Overloaded
from runtime.serving import prepare

NOTICED_S = 5.0  # usually some polls of 50 ms; the work that is not waited for needs twice as long
SLOW_S = 0.4  # of the fakes; a heartbeat of the event loop waits for less
ROUNDS = 5  # at most; a machine that stalls is a gap as well
RATE = 48_000
LONG, SHORT = prepare.QUICK_CHECK + 2, 4_800


class Encoder:
    """Stages whose encoder waits for a gate and remembers the lengths of its clips; no chunk ever comes back."""

    def __init__(self):
        self.gate, self.clips = asyncio.Event(), []

    async def encode(self, clips):
        self.clips.append([len(clip) for clip in clips])
        await self.gate.wait()
        return [np.zeros((1, 1), np.float32) for _ in clips]

    async def speak(self, chunks):
        await asyncio.sleep(60)


@pytest.fixture
def served(built, tmp_path):
    stages = Encoder()
    with in_process(built, tmp_path, stages) as service:
        yield service, stages


def silence(samples):
    return {"audio": np.zeros(samples, np.float32)}


def test_who_leaves_while_the_encoder_works_holds_nothing(served):
    service, stages = served
    encoded, queued, later = Ends(), Ends(), Ends()
    send(service, encoded, silence(16_000), {KEY_HEADER: "one"})
    until(lambda: stages.clips)
    send(service, queued, silence(8_000), {KEY_HEADER: "one"})
    until(lambda: service.preparation.encoder.waiting)
    encoded.gone = queued.gone = True
    until(lambda: not (service.live or service.gauges()["counted_requests"] or service.requests), NOTICED_S)
    assert encoded.errors == queued.errors == [None]
    assert service.metrics.take().counts["cancels_total", ""] == 2
    send(service, later, silence(4_000))
    until(lambda: service.preparation.encoder.waiting == 2)
    service.thread.loop.call_soon_threadsafe(stages.gate.set)
    until(lambda: len(stages.clips) > 1)
    assert stages.clips == [[16_000], [4_000]], "the queued clip is not encoded"


@pytest.fixture
def slow_sound(monkeypatch):
    """Slow work on sound; gives the names of the threads that did it."""
    threads, check, resample = [], prepare.split_clips, soxr.resample

    def slowly(work):
        def run(*args, **options):
            threads.append(threading.current_thread().name)
            time.sleep(SLOW_S)
            return work(*args, **options)

        return run

    monkeypatch.setattr(prepare, "split_clips", slowly(check))
    monkeypatch.setattr(soxr, "resample", slowly(resample))
    return threads


async def largest_gap(seconds):
    """Between two turns of the event loop, in seconds."""
    end, last, largest = time.monotonic() + seconds, time.monotonic(), 0.0
    while last < end:
        await asyncio.sleep(0.01)
        largest, last = max(largest, time.monotonic() - last), time.monotonic()
    return largest


def test_long_sound_is_prepared_beside_the_event_loop(served, slow_sound):
    service, stages = served
    gaps = []
    while not gaps or (gaps[-1] >= SLOW_S / 2 and len(gaps) < ROUNDS):
        watch = service.thread.run(largest_gap(2.5 * SLOW_S))
        send(service, Ends(), silence(LONG), {"sample_rate": RATE})
        gaps.append(watch.result(60))
        until(lambda: len(slow_sound) == 2 * len(gaps))
    assert min(gaps) < SLOW_S / 2, "work in the loop would be a gap in every round"
    until(lambda: stages.clips)
    assert stages.clips[0] == [LONG // 3] and "service" not in slow_sound


def test_short_sound_is_prepared_at_once(served, slow_sound):
    service, stages = served
    send(service, Ends(), silence(SHORT), {"sample_rate": RATE})
    until(lambda: stages.clips)
    assert slow_sound == ["service"] * 2


@pytest.mark.parametrize("sent_away", [False, True])
def test_who_leaves_while_sound_is_prepared_waits_for_nothing(served, monkeypatch, sent_away):
    service, stages = served
    working, goes_on, sender = threading.Event(), threading.Event(), Ends(lambda: service.live)
    monkeypatch.setattr(soxr, "resample", lambda clip, *_, **__: working.set() or (goes_on.wait(10) and clip))
    send(service, sender, silence(LONG), {"sample_rate": RATE})
    assert working.wait(5)
    (ticket,) = service.requests
    if sent_away:
        ticket.refusal = Overloaded("displaced", "one of a higher class came", retry_after_s=1.0)
        service.send_away(ticket)
    sender.gone = not sent_away
    until(lambda: sender.errors, NOTICED_S)
    assert sender.errors == [ticket.refusal]
    assert service.metrics.take().counts["rejects_total" if sent_away else "cancels_total", "displaced" * sent_away]
    goes_on.set()
    time.sleep(0.1)
    assert not stages.clips, "what was resampled in vain is not encoded"
