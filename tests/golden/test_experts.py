"""A backbone with experts against the authors' runs: every id alone and together, hidden states, router scores."""

import json
from dataclasses import replace

import moe_data as data
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from builders.tiny_chat import TINY_EXPERTS, write_tiny_chat
from kernels import experts
from kernels.linear import Dense, product
from runtime.checkpoint.weights import load_weights
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import EngineOptions
from runtime.engines.packer import Packer, Row
from runtime.engines.sizes import engine_shape
from runtime.engines.torch_engine import TorchEngine
from runtime.families.fun_audio_chat.build import recorded_loop, torch_loop
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import BACKBONE, backbone_shapes, speech_shapes

pytestmark = pytest.mark.golden
OPTIONS = EngineOptions(max_streams=8, max_positions=512, kv_positions=4096)
CPU = torch.device("cpu")
EIGHT = [*data.NAMES, "s2s_noise_2p3s"]
EXPERTS, TAKEN, WIDTH = 8, 2, 48
ROWS = 70


@pytest.mark.parametrize("chunk", [16, 256])
@pytest.mark.parametrize("name", data.NAMES)
def test_greedy_run(name, chunk):
    data.decode(torch_loop(data.config(), EngineOptions(2, 512, 1024, chunk)), [name])


def test_eight_runs_together():
    data.decode(torch_loop(data.config(), OPTIONS), EIGHT)


@pytest.mark.parametrize("name", ["s2s_noise_2p3s", "s2t_tones_7s", "s2s_rep"])
def test_greedy_run_through_the_frames_of_a_device(name):
    data.decode(recorded_loop(data.config(), replace(OPTIONS, prefill_chunk=16, lead_s=1e9), CPU), [name])


@pytest.mark.parametrize("fused", [False, True])
def test_eight_runs_together_through_the_frames_of_a_device(fused):
    data.decode(recorded_loop(data.config(), replace(OPTIONS, lead_s=1e9, fused=fused), CPU), EIGHT)


@pytest.fixture(scope="module")
def weights():
    config = data.config()
    return load_weights(config.directory, backbone_shapes(config) | speech_shapes(config), torch.float32)


@pytest.mark.parametrize("name", data.NAMES)
def test_hidden_states_and_router_scores_of_the_prefill(monkeypatch, weights, name):
    scores, golden, route = [], data.run(name), experts.route
    monkeypatch.setattr(experts, "route", lambda given, *rule: (scores.append(given), route(given, *rule))[1])
    config = data.config()
    shape = engine_shape(config.backbone, OPTIONS, 1)
    head = [weights["language_model.lm_head.weight"]]
    engine, cache = TorchEngine(config.backbone, shape, weights, BACKBONE, head), KvCache(shape)
    prompt = data.stream(name).prompt
    rows, _ = Projections(config, weights).embed_prompt(prompt, 0, len(prompt))
    cache.allocate(0, len(rows))
    bindings = Packer(shape, cache, engine.pool_address()).pack([Row(0, 0, len(rows), len(rows), True)])
    out = engine.run(rows, bindings)
    np.testing.assert_allclose(scores[0], golden["router_logits_layer0"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(out.hidden_states, golden["backbone_hidden"], atol=1e-4, rtol=0)
    assert len(scores) == config.backbone.num_layers


def mixture(hidden=64, count=EXPERTS, width=WIDTH, taken=TAKEN):
    generator = torch.Generator().manual_seed(3)

    def made(*shape):
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    gate_up, down = Dense(made(count * 2 * width, hidden)), Dense(made(count * hidden, width))
    return experts.Experts(made(count, hidden), gate_up, down, taken, True)


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.sampled_from([1, 2, 3, 5, 8, 31, 64]), st.integers(0, 5), st.sampled_from([(64, 8, 48, 2), (256, 32, 96, 8)]))
def test_a_row_does_not_depend_on_its_company(count, seed, sizes):
    """To the last bit, whichever rows share its experts."""
    layer = mixture(*sizes)
    generator = np.random.default_rng(seed)
    rows = torch.from_numpy(generator.standard_normal((ROWS, sizes[0])).astype(np.float32))
    whole = experts.run_experts(experts, rows, layer)
    chosen = torch.from_numpy(generator.permutation(ROWS)[:count])
    assert torch.equal(experts.run_experts(experts, rows[chosen], layer), whole[chosen])


def test_every_score_of_a_stream_is_the_same_in_any_company(monkeypatch):
    """Text and speech ids follow from these rows: the backbone's, of all streams, in every frame."""

    def hidden_rows(names):
        loop = torch_loop(data.config(), replace(OPTIONS, prefill_chunk=33 if len(names) > 1 else 512))
        found, run = {}, loop.model.engines[0].run

        def recorded(rows, bindings):
            out = run(rows, bindings)
            ends = bindings["sequence_length"]
            for row, end in zip(out.logits, ends, strict=True):
                found.setdefault(int(end), []).append(row.clone())
            return out

        loop.model.engines[0].run = recorded
        data.decode(loop, names)
        return found

    alone, together = hidden_rows(["s2s_rep"]), hidden_rows(["s2t_tones_7s", "s2s_rep", "s2s_multiturn"])
    for end, [row] in alone.items():
        assert any(torch.equal(row, other) for other in together[end]), end


def test_products_of_any_number_of_rows_of_one_expert():
    layer = mixture(256, 32, 96, 8)
    rows = torch.randn(ROWS, 256, generator=torch.Generator().manual_seed(1))
    part = layer.gate_up.weight[192:384]
    assert torch.equal(product(rows[7:8], part), product(rows, part)[7:8])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Layers with one MLP between those with experts, and weights that are not made to sum to one."""
    folder = tmp_path_factory.mktemp("mixed")
    write_tiny_chat(folder, sizes=TINY_EXPERTS)
    return ModelConfig.read(folder)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mixture_with_dense_layers_is_that_of_transformers(mixed, seed):
    transformers = pytest.importorskip("transformers")
    text = json.loads((mixed.directory / "config.json").read_text())["text_config"]
    model = transformers.Qwen3MoeModel(transformers.Qwen3MoeConfig(**text)).eval()
    weights = load_weights(mixed.directory, backbone_shapes(mixed), torch.float32)
    model.load_state_dict({name.removeprefix(BACKBONE): w for name, w in weights.items() if name.startswith(BACKBONE)})
    rows = torch.randn(40, mixed.backbone.hidden_size, generator=torch.Generator().manual_seed(seed))
    shape = engine_shape(mixed.backbone, OPTIONS, 1)
    engine, cache = TorchEngine(mixed.backbone, shape, weights, BACKBONE, []), KvCache(shape)
    cache.allocate(0, len(rows))
    bindings = Packer(shape, cache, engine.pool_address()).pack([Row(0, 0, len(rows), len(rows), True)])
    with torch.inference_mode():
        expected = model(inputs_embeds=rows[None]).last_hidden_state[0]
    torch.testing.assert_close(engine.run(rows, bindings).hidden_states, expected, atol=1e-4, rtol=1e-4)
