"""Whole answers of the frame loop on compiled engines (over their double): every id is the authors'."""

import chat_data as data
import pytest
from rigs import golden_weights
from tensorrt_double import Double
from test_decode import check, decode

from runtime.engines.build import assemble
from runtime.engines.options import EngineOptions
from runtime.engines.sizes import backbone_profile, speech_profile
from runtime.models.speech_head import Projections

pytestmark = pytest.mark.golden
NAMES = ("s2s_tones_7s", "s2t_noise_2p3s", "s2s_noise_2p3s", "s2s_chirp_0p5s")


@pytest.mark.parametrize(("graphs", "chunk"), [(0, 32), (3, 256)])
def test_streams_together(graphs, chunk):
    options = EngineOptions(max_streams=3, max_positions=512, kv_positions=2048, prefill_chunk=chunk)
    config = data.config()
    backbone = Double("backbone", profile=backbone_profile(config, options))
    speech = Double("speech", graphs=graphs, profile=speech_profile(config, options))
    projections = Projections(config, golden_weights())
    loop = assemble(config, options, backbone.engine, speech.engine, projections)
    for name, (texts, codes) in zip(NAMES, decode(loop, NAMES), strict=True):
        check(name, texts, codes)
    assert len(speech.engine._graphs) == graphs, "one to three streams speak together"
    assert speech.device.waits > 0 and backbone.device.waits > 0
