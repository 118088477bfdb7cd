"""The flow on a device (here the CPU) by itself: what one stream leaves behind, and what another finds."""

from copy import deepcopy

import numpy as np
import pytest
import token2wav_data as data
from token2wav_stages import MAX_STREAMS, tokens_of

from builders import export_token2wav
from runtime.contracts import FLOW_FAILED, ChunkFlag
from runtime.frames.executor import EagerExecutor
from runtime.token2wav.device_build import assemble_flow
from runtime.token2wav.layout import MEL_NOISE, Sizes
from runtime.token2wav.noise import Noise

pytestmark = pytest.mark.golden
WHOLE = ChunkFlag.START | ChunkFlag.FINAL
BROKEN = "broken"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the export writes beside its graphs, which take minutes."""
    path = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_token2wav, "_export_parts", lambda *_: [])
        export_token2wav.export_token2wav(data.nets().config.directory, path, None, noise_seconds=10)
    return path


def device_flow(folder, window=2, precision="float32"):
    """The stage with the voices ``data.VOICE`` and ``BROKEN``, whose vector is not finite."""
    voice = data.nets().voice[0].numpy()
    voices = {data.VOICE: voice, BROKEN: np.full_like(voice, np.nan)}
    flow, noise = deepcopy(data.nets().flow), Noise(folder / MEL_NOISE, axis=1)
    return assemble_flow(flow, Sizes.read(folder), voices, noise, EagerExecutor(), MAX_STREAMS, window, precision)


def call(flow, stream, flag, tokens, voice=data.VOICE):
    """One chunk: its mel, or its error."""
    found = flow.run(
        {
            "stream_ids": np.array([stream]), "chunk_flags": np.array([int(flag)], np.int32),
            "voices": np.array([voice.encode()], np.object_), "tokens": np.array(tokens, np.int32),
            "token_lengths": np.array([len(tokens)], np.int32),
        }
    )  # fmt: skip
    length = int(found["mel_lengths"][0])
    return length if length < 0 else found["mel"]


@pytest.mark.parametrize("flag", [WHOLE, ChunkFlag.START])
def test_nobody_inherits_what_is_not_finite(folder, flag):
    """A last chunk is written to the spare block only, another one to its stream's blocks as well."""
    tokens = (tokens_of("T063") * 3)[:60]
    expected = call(device_flow(folder), 1, WHOLE, tokens)
    flow = device_flow(folder)
    assert call(flow, 1, flag, tokens, BROKEN) == FLOW_FAILED
    np.testing.assert_array_equal(call(flow, 2, WHOLE, tokens), expected)
