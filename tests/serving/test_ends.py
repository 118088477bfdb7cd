"""Requests that end together with the service, in process: each gets its last response."""

import asyncio
import contextlib
import sys

import numpy as np
import pytest
from awaiting import until

from runtime.errors import Draining, EngineFault
from runtime.families.fun_audio_chat.answer import Frame
from runtime.frames.loop import LOST_FRAME, StreamFrame
from runtime.run_folder import RUN_FOLDER
from runtime.serving.door import Asked
from runtime.serving.service import ChatService
from runtime.serving.stage_guard import MANY_FAILURES, Trouble
from runtime.tritonserver.start import start_service


class Nowhere:
    """Stages that never answer."""

    async def encode(self, clips):
        await asyncio.sleep(60)

    async def speak(self, chunks):
        await asyncio.sleep(60)


class Ends:
    """A reply that remembers its ends: an error, or None where the client was gone."""

    def __init__(self):
        self.errors, self.gone = [], False

    def send(self, arrays, final):
        assert not final

    def fail(self, error):
        self.errors.append(error)

    def close(self):
        self.errors.append(None)

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
        (service if service._thread._thread.is_alive() else service._loop_thread).stop()
        sys.setswitchinterval(interval)


def send(service, reply, arrays, parameters=None):
    """A request that wants text and sound."""
    samples = len(arrays.get("audio", ()))
    outputs = frozenset({"text", "audio"})
    service.door.receive(Asked(parameters or {}, samples), reply, lambda check: (arrays, outputs))


@pytest.fixture
def service(built, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(ChatService, "_submit", lambda self, incoming: held.append(incoming))
    with in_process(built, tmp_path, Nowhere()) as service:
        yield service, held


@pytest.mark.parametrize("begun", [False, True])
def test_a_request_that_is_cancelled_with_all_others_is_answered(service, begun):
    """Also one whose task never had its first step: a cancelled coroutine does not even enter its `try`."""
    service, held = service
    reply = Ends()
    send(service, reply, {"audio": np.zeros(16_000, np.float32)})
    (incoming,) = held

    async def end():
        ending = None if begun else asyncio.create_task(service._endings.out_of_time())
        service._accept(incoming)
        if begun:
            await asyncio.sleep(0.05)
        await (ending or service._endings.out_of_time())
        await asyncio.sleep(0.05)

    service._thread.run(end()).result(10)
    assert [type(error) for error in reply.errors] == [Draining]
    assert service.live == 0 and service.door.keys.live == 0


def test_a_lost_thread_answers_every_request(built, tmp_path):
    """Those that run and those that are being prepared; what an end frees cannot be freed without the loop."""
    died = []
    with in_process(built, tmp_path, Nowhere()) as service:
        service._endings._die = lambda: died.append(True)
        service._dispatcher.offer = lambda sound: asyncio.get_running_loop()  # so that no answer is ever complete
        replies = [Ends() for _ in range(3)]
        send(service, replies[0], {"text": np.array([b"hi"], np.object_)}, {"max_tokens": 20})
        send(service, replies[1], {"audio": np.zeros(16_000, np.float32)})
        until(lambda: len(service._sessions) == len(service._tasks) == 1)
        service._aio.call_soon_threadsafe(sys.exit)
        service._thread._thread.join(10)
        send(service, replies[2], {"text": np.array([b"hi"], np.object_)})
        assert [[type(error) for error in reply.errors] for reply in replies] == [[EngineFault]] * 3 and died


@pytest.mark.parametrize("healthy", [False, True])
def test_engines_that_give_nothing_finite_for_long_end_the_process(built, tmp_path, healthy):
    """A broken row ends its stream; where no row is whole for long, no answer ever will be."""
    died = []
    whole = StreamFrame(None, Frame(text_id=1, codes=(), speech_ended=False, finish=""))
    broken = [StreamFrame(None, LOST_FRAME)] * 2
    with in_process(built, tmp_path, Nowhere()) as service:
        service._endings._die = lambda: died.append(True)
        service._endings._trouble = Trouble(0.0)
        reply = Ends()
        send(service, reply, {"audio": np.zeros(16_000, np.float32)})
        until(lambda: service._tasks)
        for _ in range(MANY_FAILURES + 1):
            service._frames([*broken, whole] if healthy else broken)
        if healthy:
            service._thread.run(asyncio.sleep(0)).result(10)
            assert not reply.errors and service._endings._why is None
        else:
            until(lambda: died)
            assert [str(error) for error in reply.errors] == [
                "INTERNAL: engine: gave no stream anything finite; the server restarts: send the request again"
            ]
