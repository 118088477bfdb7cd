"""Converted TensorRT-LLM checkpoints, read back by an independent interpreter, against recorded vectors."""

import json

import chat_data as data
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from trtllm_interpreter import interpret

from builders.tensorrt.convert import convert
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from runtime.checkpoint.weights import load_weights
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes
from runtime.scheduling.stream import Prompt

pytestmark = pytest.mark.golden
POSITIONS = 4096  # of the longest sequence
CLIPS = ("chirp_0p5s", "noise_2p3s", "tones_7s")
STEPS = 12  # recorded in full
LOGITS, OTHER = 2e-4, 1e-4


def close(found, expected, tolerance):
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def projections():
    config = data.config()
    weights = load_weights(config.directory, backbone_shapes(config) | speech_shapes(config), torch.float32)
    return Projections(config, weights)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Directories by precision and engine."""
    config, out = data.config(), tmp_path_factory.mktemp("trtllm")
    found = {}
    for name in ("f32", "bf16", "w8a16"):
        for plan in (backbone_plan(config), speech_plan(config)):
            directory = found[name, plan.name] = out / name / plan.name
            convert(config.directory, plan, Precision.named(name), POSITIONS, directory)
    return found


def backbone_inputs(clip, projections):
    """Prompt and recorded steps as one sequence [prompt + steps, hidden], and the prompt's length."""
    golden = data.prefill(f"s2s_{clip}")
    ids = golden["prompt_ids"]
    prompt = Prompt(ids, golden["audio_embeds"], np.flatnonzero(ids == data.config().text_ids.audio))
    rows, _ = projections.embed_prompt(prompt, 0, len(ids))
    steps = torch.from_numpy(data.run(f"s2s_{clip}")["backbone_step_inputs"])
    return torch.cat([rows, steps]), len(ids)


def speech_inputs(clip, projections):
    """The speech head's whole input with recorded codes: [5 * (prompt + steps), width]."""
    golden, run = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    text = projections.embed_text(torch.from_numpy(golden["prompt_ids"]))
    hidden = torch.from_numpy(golden["backbone_hidden_states"][-1])
    zero = torch.zeros_like(hidden[:1])
    steps = torch.from_numpy(run["srh_input_last"][1:])
    spread = torch.cat([projections.spread(hidden, text), projections.spread(steps, zero)]).flatten(0, 1)
    codes = torch.full((len(spread),), data.config().speech_ids.bos)
    made = torch.from_numpy(run["srh_tokens_raw"][: STEPS + 1]).flatten()
    codes[-(len(made) - 1) :] = made[:-1]
    return projections.speech_inputs(spread, codes)


@pytest.mark.parametrize("clip", CLIPS)
def test_backbone_reproduces_hidden_states_and_logits(converted, projections, clip):
    inputs, length = backbone_inputs(clip, projections)
    golden, run = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    hidden, logits = interpret(converted["f32", "backbone"], inputs)
    close(hidden[:length], golden["backbone_hidden_states"][-1], OTHER)
    close(hidden[length - 1 :], run["backbone_hidden_last"], OTHER)
    close(logits[length - 1], golden["text_logits"][-1], LOGITS)
    top = torch.from_numpy(run["text_logits_top10_ids"]).long()
    close(logits[length - 1 :].gather(1, top), run["text_logits_top10"], LOGITS)


@pytest.mark.parametrize("clip", CLIPS)
def test_speech_head_reproduces_hidden_states_and_logits(converted, projections, clip):
    golden, run = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    hidden, logits = interpret(converted["f32", "srh"], speech_inputs(clip, projections))
    prompt = 5 * len(golden["prompt_ids"]) - 4
    expected = golden["srh_prefill_hidden"]
    close(hidden[prompt - len(expected) : prompt], expected, OTHER)
    close(logits[prompt - 1], golden["srh_prefill_logits_last"], LOGITS)
    drawn = run["srh_hidden"].reshape(-1, hidden.shape[1])
    close(hidden[-len(drawn) :], drawn, OTHER)
    top = torch.from_numpy(run["srh_logits_top10_ids"]).long().flatten(0, 1)
    close(logits[-len(drawn) :].gather(1, top), run["srh_logits_top10"].reshape(top.shape), LOGITS)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def stored(name, tensor, precision):
    """What a float32 tensor of a checkpoint becomes in the built engine."""
    rounded = tensor.bfloat16().float()
    if precision == "bf16" or tensor.dim() == 1 or not name.startswith("layers."):
        return rounded
    scale = rounded.abs().amax(dim=1, keepdim=True) / 128
    return (rounded / scale).round().clamp(-128, 127) * scale.bfloat16()


def with_errors_of_random_sign(source, precision, seed, out):
    """The float32 checkpoint plus the rounding errors of a precision, each with a random sign."""
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source / "rank0.safetensors")
    for name, tensor in tensors.items():
        signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
        tensors[name] = tensor + signs * (stored(name, tensor, precision) - tensor)
    out.mkdir()
    save_file(tensors, out / "rank0.safetensors")
    (out / "config.json").write_text((source / "config.json").read_text())
    return out


@pytest.mark.parametrize("engine", ["backbone", "srh"])
@pytest.mark.parametrize("precision", ["bf16", "w8a16"])
def test_lower_precision_errs_like_its_rounding(converted, projections, engine, precision, tmp_path):
    """The error is that of rounding and of nothing else.

    How far rounding of this size carries through this very model is measured: the same errors with random
    signs, eight times. The real ones must lie among them (within half as much again), in both directions: no
    further from the truth, and not nearer as if something had not been rounded.
    """
    inputs = {"backbone": lambda *a: backbone_inputs(*a)[0], "srh": speech_inputs}[engine]("noise_2p3s", projections)
    source = converted["f32", engine]
    exact = interpret(source, inputs)
    found = interpret(converted[precision, engine], inputs)
    noisy = [
        interpret(with_errors_of_random_sign(source, precision, seed, tmp_path / str(seed)), inputs)
        for seed in range(8)
    ]
    for i, name in enumerate(("hidden_states", "logits")):
        error = relative_error(found[i], exact[i])
        likely = [relative_error(other[i], exact[i]) for other in noisy]
        print(f"{engine} {precision} {name}: {error:.2e}, random signs {min(likely):.2e} to {max(likely):.2e}")
        assert min(likely) / 1.5 < error < 1.5 * max(likely)


def test_w8a16_stores_bf16_and_excludes_both_heads(converted):
    """The library quantises on loading; a linear layer without a scale that is not excluded would not load."""
    for engine in ("backbone", "srh"):
        plain, quantised = (converted[precision, engine] for precision in ("bf16", "w8a16"))
        assert (plain / "rank0.safetensors").read_bytes() == (quantised / "rank0.safetensors").read_bytes()
        config = json.loads((quantised / "config.json").read_text())["quantization"]
        assert config["quant_algo"] == "W8A16" and config["kv_cache_quant_algo"] is None
        assert config["exclude_modules"] == ["*lm_head", "*output_matching"]
    assert json.loads((plain / "config.json").read_text())["quantization"]["quant_algo"] is None


@pytest.mark.parametrize("engine", ["backbone", "srh"])
@pytest.mark.parametrize("fault", ["fc and gate", "q and k norm", "q and k", "head_size", "rotary_base"])
def test_the_interpreter_notices(converted, projections, tmp_path, engine, fault):
    """The comparison above is worth something: a checkpoint with one fault gives other numbers or none."""
    source = converted["f32", engine]
    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "rank0.safetensors")

    def swap(a, b):
        tensors[a], tensors[b] = tensors[b], tensors[a]

    if fault == "fc and gate":
        swap("layers.1.mlp.fc.weight", "layers.1.mlp.gate.weight")
    elif fault == "q and k norm":
        swap("layers.1.attention.q_layernorm.weight", "layers.1.attention.k_layernorm.weight")
    elif fault == "q and k":
        size = config["head_size"]
        q, k, v = tensors["layers.0.attention.qkv.weight"].split([4 * size, 2 * size, 2 * size])
        tensors["layers.0.attention.qkv.weight"] = torch.cat([k, q, v])
    elif fault == "head_size":
        config["head_size"] = config["hidden_size"] // config["num_attention_heads"]
    else:
        config["rotary_base"] = 10000.0
    save_file(tensors, tmp_path / "rank0.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    inputs = backbone_inputs("chirp_0p5s", projections)[0] if engine == "backbone" else None
    inputs = speech_inputs("chirp_0p5s", projections) if inputs is None else inputs
    expected, _ = interpret(source, inputs)
    try:
        found, _ = interpret(tmp_path, inputs)
    except AssertionError:
        assert fault == "head_size"
        return
    assert (found - expected).abs().max() > 10 * OTHER
