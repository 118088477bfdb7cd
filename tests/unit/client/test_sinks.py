"""The loudspeaker, with a fake sounddevice."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from client import ChatError, Chunk
from client.sinks import Loudspeaker

SOUND = Chunk(audio=np.zeros(2400, np.float32))


class FakeSpeaker:
    """Stands in for sounddevice and its stream."""

    PortAudioError = RuntimeError

    def __init__(self):
        self.go, self.played, self.calls, self.failure = threading.Event(), [], [], None

    def __getattr__(self, name):
        return lambda: self.calls.append(name)

    def OutputStream(self, **options):
        return self

    def write(self, samples):
        assert self.go.wait(5)
        if self.failure:
            raise self.failure
        self.played.append(samples.shape)


@pytest.fixture
def speaker(monkeypatch):
    made = FakeSpeaker()
    monkeypatch.setitem(sys.modules, "sounddevice", made)
    return made


def test_sound_plays_while_more_arrives(speaker):
    sink = Loudspeaker()
    for _ in range(3):
        sink.put(SOUND)
    assert not speaker.played, "nobody waits for the device"
    speaker.go.set()
    sink.close(True)
    assert speaker.played == [(2400, 1)] * 3 and speaker.calls == ["start", "stop", "close"]


def test_an_answer_that_broke_off_falls_silent(speaker, monkeypatch):
    sink = Loudspeaker()
    sink.put(Chunk(audio=np.zeros(24_000, np.float32)))
    join = sink._thread.join
    monkeypatch.setattr(sink._thread, "join", lambda: (speaker.go.set(), join()))  # the device goes on meanwhile
    sink.close(False)
    assert len(speaker.played) <= 1 and speaker.calls == ["start", "abort", "close"]


def test_a_device_that_fails_is_named_at_the_end(speaker):
    speaker.failure = RuntimeError("unplugged")
    speaker.go.set()
    sink = Loudspeaker()
    sink.put(SOUND)
    with pytest.raises(ChatError, match=r"INTERNAL: play: .*unplugged"):
        sink.close(True)
    assert speaker.calls[-1] == "close"
