"""Memory that token2wav takes from the language engines beside it, with options that the operator set."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from builders.settings import Settings
from builders.tensorrt.capacity import ONE_GPU
from builders.tensorrt.profiles import PROFILES
from builders.tensorrt.sound import ENDING_STREAMS, SoundBuild
from builders.tiny_cosyvoice import write_tiny_cosyvoice


@pytest.fixture
def plan(tmp_path):
    write_tiny_cosyvoice(tmp_path)
    machine = SimpleNamespace(gpu_bytes=80 << 30)

    def make(*given):
        streams = PROFILES["h100-bf16"].max_streams
        return SoundBuild.plan(Path(), tmp_path, streams, machine, False, Settings.read(given))

    return make


def test_the_reserve_follows_the_options(plan):
    usual = plan()
    assert usual.reserve.fixed == ONE_GPU.fixed + ENDING_STREAMS * usual.per_stream
    wider = plan(f"token2wav.max_streams={usual.options.max_streams + 10}")
    assert wider.reserve.fixed - usual.reserve.fixed == 10 * usual.per_stream
    assert plan("token2wav.max_streams=1").reserve.fixed == ONE_GPU.fixed, "never less than what is always there"
    finer = plan("token2wav.precision=float32")
    cached = usual.per_stream - plan("token2wav.window=0").per_stream
    assert finer.per_stream == usual.per_stream + cached, "blocks take twice the room"
