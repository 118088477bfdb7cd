"""Requests that end together with the service, in process: each gets its last response."""

import asyncio
import contextlib
import sys

import numpy as np
import pytest
from awaiting import until

from runtime.errors import EngineFault
from runtime.families.fun_audio_chat.answer import Frame
from runtime.frames.loop import LOST_FRAME, StreamFrame
from runtime.run_folder import RUN_FOLDER
from runtime.serving.stage_guard import MANY_FAILURES, FailureStreak
from runtime.tritonserver.start import start_service


class Nowhere:
    """Stages that never answer."""

    async def encode(self, clips):
        await asyncio.sleep(60)

    async def speak(self, chunks):
        await asyncio.sleep(60)


class Ends:
    """A sender that remembers its ends: an error, None where the client was gone, True of a whole answer.

    ``live``: the requests that may be counted when it ends.
    """

    def __init__(self, live=lambda: 0):
        self.errors, self.gone, self.live = [], False, live

    def send(self, arrays, final):
        if final:
            self._end(True)

    def fail(self, error):
        self._end(error)

    def close(self):
        self._end(None)

    def _end(self, how):
        self.errors.append(how if not self.live() else AssertionError("the count falls before the last response"))

    def is_cancelled(self):
        return self.gone


@contextlib.contextmanager
def in_process(built, folder, stages):
    """A service on what ``built`` holds, in this process."""
    interval = sys.getswitchinterval()
    for child in built.iterdir():
        if child.name != RUN_FOLDER:  # another server may be told of its life there
            (folder / child.name).symlink_to(child)
    service = start_service(folder, stages)
    try:
        yield service
    finally:
        (service if service.thread.is_alive() else service.loop_thread).stop()
        sys.setswitchinterval(interval)


class Raw:
    """A request that wants text and sound."""

    def __init__(self, arrays, parameters):
        self._arrays, self._parameters = arrays, parameters

    def parameters(self):
        return self._parameters

    def samples(self):
        return len(self._arrays.get("audio", ()))

    def timeout_s(self):
        return None

    def read(self, check):
        check(self._arrays)
        return self._arrays, frozenset({"text", "audio"})


def send(service, sender, arrays, parameters=None):
    service.door.receive(Raw(arrays, parameters or {}), sender)


def question():
    return {"text": np.array([b"hi"], np.object_)}


@pytest.mark.parametrize("begun", [False, True])
def test_a_request_that_is_cancelled_with_all_others_is_answered(built, tmp_path, begun):
    """Also one whose task never had its first step: a cancelled coroutine does not even enter its `try`."""
    with in_process(built, tmp_path, Nowhere()) as service:
        sender = Ends(lambda: service.live)

        async def end():
            send(service, sender, {"audio": np.zeros(16_000, np.float32)})
            if begun:
                await asyncio.sleep(0.05)
            await service.shutdown.out_of_time()
            await asyncio.sleep(0.05)

        service.thread.run(end()).result(10)
        assert [str(error) for error in sender.errors] == [
            "UNAVAILABLE: server: stopped before this answer was complete; send it again"
        ]
        assert not service.requests and service.gauges()["counted_requests"] == 0


@pytest.mark.parametrize("full", [False, True])
def test_a_whole_answer_ends_once_and_holds_nothing(built, tmp_path, full):
    """``full``: there is no memory for the last response, which then is an error."""
    with in_process(built, tmp_path, Nowhere()) as service:
        sender = Ends(lambda: service.live)
        whole = sender.send

        def send_or_fail(arrays, final):
            if final and full:
                raise RuntimeError("Failed to increase the shared memory pool size")
            whole(arrays, final)

        sender.send = send_or_fail
        send(service, sender, question(), {"mode": "s2t", "max_tokens": 3})
        until(lambda: sender.errors)
        shown = ["UNAVAILABLE: fun_audio_chat: shared memory is full; retry; the operator gives it more"]
        assert [str(error) for error in sender.errors] == (shown if full else ["True"])
        until(lambda: not service.gauges()["live_streams"])
        assert not service.requests and service.gauges()["kv_used_backbone"] == 0


def test_a_lost_thread_answers_every_request(built, tmp_path):
    """Those that run and those that are being prepared; what an end frees cannot be freed without the loop."""
    died = []
    with in_process(built, tmp_path, Nowhere()) as service:
        service.shutdown.die = lambda: died.append(True)
        senders = [Ends() for _ in range(3)]
        send(service, senders[0], question(), {"max_tokens": 20})  # its sound never comes, so it is never complete
        send(service, senders[1], {"audio": np.zeros(16_000, np.float32)})
        until(lambda: service.metrics.frames)
        service.thread.loop.call_soon_threadsafe(sys.exit)
        until(lambda: not service.thread.is_alive())
        send(service, senders[2], question())
        assert [[type(error) for error in sender.errors] for sender in senders] == [[EngineFault]] * 3 and died


@pytest.mark.parametrize("healthy", [False, True])
def test_engines_that_give_nothing_finite_for_long_end_the_process(built, tmp_path, healthy):
    """A broken row ends its stream; where no row is whole for long, no answer ever will be."""
    died = []
    whole = StreamFrame(None, Frame(text_ids=(1,)))
    broken = [StreamFrame(None, LOST_FRAME)] * 2
    with in_process(built, tmp_path, Nowhere()) as service:
        service.shutdown.die = lambda: died.append(True)
        service.shutdown.broken_steps = FailureStreak(0.0)
        sender = Ends()
        send(service, sender, {"audio": np.zeros(16_000, np.float32)})
        until(lambda: service.requests)
        for _ in range(MANY_FAILURES + 1):
            service.deliver([*broken, whole] if healthy else broken)
        if healthy:
            service.thread.run(asyncio.sleep(0)).result(10)
            service.door.check_open()
            assert not sender.errors and not died
        else:
            until(lambda: died)
            assert [str(error) for error in sender.errors] == [
                "INTERNAL: engine: gave no stream anything finite; the server restarts: send the request again"
            ]
