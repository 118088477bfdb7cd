"""Requests that end together with the service, in process: each gets its last response."""

import asyncio
import sys

import numpy as np
import pytest

from runtime.errors import Draining
from runtime.server.control import RUN_FOLDER
from runtime.serving.door import Asked
from runtime.serving.service import ChatService
from runtime.serving.start import start_service


class Nowhere:
    """Stages that never answer."""

    async def encode(self, clips):
        await asyncio.sleep(60)

    async def speak(self, chunks):
        await asyncio.sleep(60)


class Ends:
    def __init__(self):
        self.errors = []

    def send(self, arrays, final):
        assert not final

    def fail(self, error):
        self.errors.append(error)

    def close(self):
        self.errors.append(None)

    def is_cancelled(self):
        return False


@pytest.fixture
def service(built, tmp_path, monkeypatch):
    held, interval = [], sys.getswitchinterval()
    for child in built.iterdir():
        if child.name != RUN_FOLDER:  # another server may be told of its life there
            (tmp_path / child.name).symlink_to(child)
    monkeypatch.setattr(ChatService, "_submit", lambda self, incoming: held.append(incoming))
    service = start_service(tmp_path, Nowhere())
    yield service, held
    service.stop()
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("begun", [False, True])
def test_a_request_that_is_cancelled_with_all_others_is_answered(service, begun):
    """Also one whose task never had its first step: a cancelled coroutine does not even enter its `try`."""
    service, held = service
    reply, sound = Ends(), {"audio": np.zeros(16_000, np.float32)}
    service.door.receive(Asked({}, 16_000), reply, lambda check: (sound, frozenset({"text"})))
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
