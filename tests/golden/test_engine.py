"""Engines over paged bindings against recorded hidden states and logits, and the processed distributions."""

import chat_data as data
import numpy as np
import pytest
import torch

from kernels.sampler import probabilities
from runtime.checkpoint.weights import load_weights
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import EngineOptions
from runtime.engines.packer import Packer, Row, advance
from runtime.engines.sizes import engine_shape
from runtime.engines.torch_engine import TorchEngine
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK, SPEECH_STACK, backbone_shapes, speech_shapes
from runtime.scheduling.stream import Prompt

pytestmark = pytest.mark.golden
OPTIONS = EngineOptions(max_streams=8, max_positions=256, kv_positions=1024, prefill_chunk=256)
LOGITS, OTHER = 2e-4, 1e-4
CLIPS = ("chirp_0p5s", "noise_2p3s", "tones_7s", "mix_31s")


def close(found, expected, tolerance):
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def weights():
    config = data.config()
    return load_weights(config.directory, backbone_shapes(config) | speech_shapes(config), torch.float32)


class Rig:
    """An engine with its cache and packer."""

    def __init__(self, decoder, weights, prefix, head, group):
        shape = engine_shape(decoder, OPTIONS, group)
        self.engine = TorchEngine(decoder, shape, weights, prefix, head)
        self.cache = KvCache(shape)
        self.packer = Packer(shape, self.cache, self.engine.pool_address())

    def run(self, rows, slots):
        return self.engine.run(rows, self.packer.pack(slots))


@pytest.fixture
def backbone(weights):
    return Rig(data.config().backbone, weights, BACKBONE, [weights["language_model.lm_head.weight"]], 1)


@pytest.fixture
def speech(weights):
    head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    return Rig(data.config().speech_head, weights, SPEECH_STACK, head, 5)


def prompt(clip, weights):
    golden = data.prefill(f"s2s_{clip}")
    ids = golden["prompt_ids"]
    prompt = Prompt(ids, golden["audio_embeds"], np.flatnonzero(ids == data.config().text_ids.audio))
    return golden, *Projections(data.config(), weights).embed_prompt(prompt, 0, len(ids))


@pytest.mark.parametrize("clip", CLIPS)
def test_backbone_prefill(backbone, weights, clip):
    golden, inputs, _ = prompt(clip, weights)
    if "inputs_embeds" in golden:
        close(inputs, golden["inputs_embeds"], OTHER)
    backbone.cache.allocate(3, len(inputs))
    out = backbone.run(inputs, [Row(3, 0, len(inputs), len(inputs), True)])
    close(out.hidden_states, golden["backbone_hidden_states"][-1], OTHER)
    close(out.logits, golden["text_logits"][-1:], LOGITS)


@pytest.mark.parametrize("clip", CLIPS)
def test_speech_prefill(speech, weights, clip):
    golden, _, text = prompt(clip, weights)
    projections = Projections(data.config(), weights)
    hidden = torch.from_numpy(golden["backbone_hidden_states"][-1])
    if "srh_input" in golden:
        close(hidden + text, golden["srh_input"], OTHER)
    rows = projections.spread(hidden, text).flatten(0, 1)[:-4]
    inputs = projections.speech_inputs(rows, torch.tensor(data.config().speech_ids.bos))
    if "srh_prefill_embed" in golden:
        close(inputs, golden["srh_prefill_embed"], OTHER)
    speech.cache.allocate(0, len(inputs))
    out = speech.run(inputs, [Row(0, 0, len(inputs), len(inputs), True)])
    expected = golden["srh_prefill_hidden"]
    close(out.hidden_states[-len(expected) :], expected, OTHER)
    close(out.logits[0], golden["srh_prefill_logits_last"], LOGITS)


def test_backbone_steps_with_recorded_inputs(backbone, weights):
    """Teacher forcing: chunked context, other sequences in the batch, blocks out of order."""
    _, inputs, _ = prompt("noise_2p3s", weights)
    golden, length = data.run("s2s_noise_2p3s"), len(inputs)
    backbone.cache.allocate(1, 40)
    backbone.cache.allocate(5, length + 20)
    backbone.cache.release(1)
    backbone.cache.allocate(2, length + 20)
    for begin, end in ((0, 7), (7, 40), (40, length)):
        chunks = [Row(5, begin, end - begin, length, True), Row(2, begin, end - begin, length, True)]
        out = backbone.run(inputs[begin:end].repeat(2, 1), chunks)
    close(out.hidden_states[-1], golden["backbone_hidden_last"][0], OTHER)
    steps = torch.from_numpy(golden["backbone_step_inputs"])
    bindings = backbone.packer.pack([Row(2, length, 1, length, False), Row(5, length, 1, length, False)])
    for step, row in enumerate(steps, start=1):
        out = backbone.engine.run(row.repeat(2, 1), bindings)
        for i in range(2):
            close(out.hidden_states[i], golden["backbone_hidden_last"][step], OTHER)
            top = out.logits[i, golden["text_logits_top10_ids"][step]]
            close(top, golden["text_logits_top10"][step], LOGITS)
        bindings = advance(bindings)


@pytest.mark.parametrize("name", ["s2s_sample_textgreedy", "s2s_sample_both"])
def test_processed_distributions(name):
    """The recorded probability vectors from the recorded scores of the prefill's first draw."""
    golden, sampling = data.run(name), data.params(name).sampling
    scores = torch.from_numpy(golden["prefill_srh_logits_last"].copy())[None]
    vector = slice(*golden["probs_indptr"][:2])
    found = probabilities(
        scores,
        torch.tensor([[sampling.temperature]]),
        torch.tensor([[sampling.top_k]]),
        torch.tensor([[sampling.top_p]]),
    )[0].numpy()
    assert np.flatnonzero(found).tolist() == golden["probs_ids"][vector].tolist()
    close(found[golden["probs_ids"][vector]], golden["probs_values"][vector], 1e-5)
