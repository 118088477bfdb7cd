"""Options on the command line of the build."""

import pytest

from builders.options import portable_options
from builders.request import BuildRequest
from builders.settings import _READERS, SECTIONS, Settings, known
from builders.tiny_chat import write_tiny_chat
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.options import Options, ServingOptions
from runtime.requests.limits import RequestLimits
from runtime.token2wav.options import Token2WavOptions


def test_every_kind_of_value():
    given = ["serving.max_waiting=none", "serving.stage_timeout_s=60", "token2wav.hops=15,25", "limits.clips=3"]
    settings = Settings.read([*given, "token2wav.full_attention=true", "token2wav.engine=torch", "limits.audio_s=1.5"])
    assert settings.apply("serving", ServingOptions(max_waiting=3)) == ServingOptions(stage_timeout_s=60.0)
    sound = settings.apply("token2wav", Token2WavOptions())
    assert sound == Token2WavOptions(hops=(15, 25), full_attention=True, engine="torch")
    assert settings.apply("limits", RequestLimits()) == RequestLimits(clips=3, audio_s=1.5)


def test_every_option_can_be_read():
    for section in SECTIONS:
        assert set(known(section).values()) <= _READERS.keys(), section


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clips=3", "'clips=3' is not section.name=value; the sections are encoder, engine, limits"),
        ("limits.clips", "is not section.name=value"),
        ("limits.clip=3", "limits has no option 'clip'; the names are clip_s"),
        ("limits.clips=x", "limits.clips: 'x' is not a whole number"),
        ("limits.clip_s=nan", "limits.clip_s: 'nan' is not a number"),
        ("token2wav.hops=15,x", "is not whole numbers with commas"),
        ("token2wav.full_attention=1", "is not true or false"),
        ("encoder.hidden=64", "encoder has no option 'hidden'; the names are max_windows"),
    ],
)
def test_a_bad_pair_is_named(text, words):
    with pytest.raises(BuildError, match=words):
        Settings.read([text])


def test_a_bad_value_is_named():
    with pytest.raises(BuildError, match="set limits: clips: 0 is below 1"):
        Settings.read(["limits.clips=0"]).apply("limits", RequestLimits())


def test_they_reach_the_folder(tmp_path):
    write_tiny_chat(tmp_path / "chat")
    config = ModelConfig.read(tmp_path / "chat")
    given = ["engine.max_streams=4", "encoder.max_windows=8", "serving.max_wait_s=2", "limits.turns=9"]
    request = BuildRequest("cpu", tmp_path, settings=Settings.read([*given, "token2wav.window=3"]))
    portable_options(request, config, tmp_path / "voice").write()
    found = Options.read(tmp_path)
    assert (found.engine.max_streams, found.encoder.max_windows, found.token2wav.window) == (4, 8, 3)
    assert (found.serving.max_wait_s, found.limits.turns) == (2.0, 9)


def test_what_does_not_go_together(tmp_path):
    for target, setting, words in (
        ("cpu", "token2wav.engine=torch", r"token2wav\.engine: 'torch' is a choice of target cuda only"),
        ("tensorrt", "token2wav.full_attention=true", "its shapes are not bounded, which tensorrt needs"),
        ("tensorrt", "serving.max_wait_s=0", "set serving: max_wait_s: 0.0 is not above 0"),
        ("cpu", "serving.heartbeat_s=20", "heartbeat_s: 20.0 is above 5"),
        ("cpu", "encoder.max_windows=0", "max_windows: 0 is below 1"),
    ):
        with pytest.raises(BuildError, match=words):  # before anything is built
            BuildRequest(target, tmp_path, settings=Settings.read([setting]))
    with pytest.raises(BuildError, match="compiled into the engines; choose a PROFILE"):
        BuildRequest("tensorrt", tmp_path, settings=Settings.read(["engine.max_streams=4"]))
