"""Whole answers of the frame loop on compiled engines (over their double): every id is the authors'."""

from types import SimpleNamespace

import chat_data as data
import pytest
import torch
from tensorrt_double import Double
from test_decode import check, decode

from runtime.engines.options import EngineOptions
from runtime.engines.trtllm_files import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.engines.trtllm_loop import loop_over

pytestmark = pytest.mark.golden
NAMES = ("s2s_tones_7s", "s2t_noise_2p3s", "s2s_noise_2p3s", "s2s_chirp_0p5s")


@pytest.mark.parametrize(("graphs", "chunk"), [(0, 32), (3, 256)])
def test_streams_together(graphs, chunk):
    engine = EngineOptions(max_streams=3, max_positions=512, kv_positions=2048, prefill_chunk=chunk)
    config, doubles = data.config(), {}
    options = SimpleNamespace(engine=engine)

    def open_engine(name, profile):
        stack = {BACKBONE_ENGINE: "backbone", SPEECH_ENGINE: "speech"}[name]
        doubles[stack] = Double(stack, graphs=graphs if stack == "speech" else 0, profile=profile)
        return doubles[stack].engine

    loop = loop_over(options, config, torch.device("cpu"), open_engine)
    backbone, speech = doubles["backbone"], doubles["speech"]
    for name, (texts, codes) in zip(NAMES, decode(loop, NAMES), strict=True):
        check(name, texts, codes)
    assert len(speech.engine._graphs) == graphs, "one to three streams speak together"
    assert speech.device.waits > 0 and backbone.device.waits > 0
