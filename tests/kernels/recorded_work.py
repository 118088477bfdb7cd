"""Watches every recording of target ``cuda`` at released sizes, two layers of each net. Run by ``test_recorded_work``.

A process of its own: Triton's interpreter must be off. Prints one JSON object: recordings, problems and lost memory of
each part, and how many variants of kernels were asked for before and after everything was prepared.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import watched
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from watched import META, Recorder

from benchmarks.gpu.expert_checks import A3B, A3B_HIDDEN
from builders.released import full
from builders.sound_sizes import sizes_of
from kernels.gpu import flow_attention, launch
from kernels.gpu.quantised import scaled_product
from kernels.ops import kernel_ops
from kernels.quantised import matrix_maker
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.build import steps_loop
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.encoder_sizes import encoder_rule
from runtime.families.fun_audio_chat.stacks import build_steps
from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes
from runtime.graphs.recorded import DeviceGraph
from runtime.params import AnswerParams, SamplingParams
from runtime.scheduling.stream import Prompt, Stream
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.device_build import assemble_flow, vocoder_graph
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.shapes import vocoder_profile
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.vocoder.recorded_sizes import vocoder_calls

PROCESSORS, LAYERS = 132, 2
SIZES = full()
MODEL = replace(
    SIZES.model,
    backbone=replace(SIZES.model.backbone, num_layers=LAYERS),
    speech_head=replace(SIZES.model.speech_head, num_layers=LAYERS),
    encoder=replace(SIZES.model.encoder, num_layers=LAYERS),
)
# The backbone with experts, whose sizes are released; its layers are of the same two stacks.
MIXTURE = replace(
    MODEL,
    backbone=replace(
        MODEL.backbone, hidden_size=A3B_HIDDEN, num_heads=32, num_kv_heads=4, intermediate_size=6144, experts=A3B
    ),
)
OPTIONS = EngineOptions(64, 4096, 49152, 512, dtype="bfloat16", device="cuda", lead_s=1e9)
asked = []


class Driver:
    """Stands for a GPU that is asked for its kind only."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def count_variants():
    """Triton itself decides which launches need another kernel; none is compiled."""
    driver.set_active(Driver())
    right = JITFunction.run

    def compiled(kernel, key, signature, device, *rest):
        asked.append(kernel.fn.__name__)
        kernel.device_caches[device][0][key] = object()
        return None

    JITFunction._do_compile = compiled
    watched.catch_launches(JITFunction)
    noted = JITFunction.run

    def run(kernel, *args, grid, warmup, **options):
        noted(kernel, *args, grid=grid, warmup=warmup, **options)
        right(kernel, *args, grid=grid, warmup=True, **options)

    JITFunction.run = run


def stream(key, length, model):
    ids, speech = model.text_ids, model.speech_ids
    params = AnswerParams(max_tokens=64, sampling=SamplingParams(seed=key))
    empty = np.zeros((0, model.backbone.hidden_size), np.float32)
    prompt = Prompt(np.zeros(length, np.int64), empty, np.zeros(0, np.int64))
    return Stream(key, prompt, Answer(replace(ids, stop=()), speech, params))


def language(linear, fused, streams, model=MODEL):
    shapes = backbone_shapes(model) | speech_shapes(model)
    weights = {name: torch.empty(shape, dtype=torch.bfloat16, device=META) for name, shape in shapes.items()}
    options, executor = replace(OPTIONS, max_streams=streams, linear=linear, fused=fused), Recorder()
    with torch.inference_mode():
        steps = build_steps(model, options, weights, kernel_ops(), matrix_maker(linear, scaled_product))
    loop = steps_loop(model, options, steps, weights, executor)
    loop.model.prepare()
    before = len(asked)
    for key, length in enumerate((2, 33, 130, 600)):
        loop.add(stream(key, length, model))
        for _ in range(3):
            loop.step()
    return executor, before, loop


def flow(rows):
    executor, voice = Recorder(), {"voice": np.ones(SIZES.flow.speaker_dim, np.float32)}
    config = replace(SIZES.flow, depth=LAYERS)
    found = sizes_of(Token2WavConfig(Path("."), config, SIZES.hift, 25), ("voice",))

    class Noise:
        def window(self, begin, end):
            return np.zeros((config.mel_bins, end - begin), np.float32)

    made = assemble_flow(Flow(config).eval(), found, voice, Noise(), executor, 16, 3, "float16", kernel_ops())
    made.prepare(rows)
    return executor, made


def vocoder(rows):
    executor = Recorder()
    found = sizes_of(Token2WavConfig(Path("."), SIZES.flow, SIZES.hift, 25), ("voice",))
    with META:
        net = Vocoder(SIZES.hift).eval()
    made = vocoder_graph(net, executor, kernel_ops())
    calls = list(vocoder_calls(vocoder_profile(found, rows), found.frame_samples))
    made.prepare([calls[0], calls[-1]])
    return executor, made


def encoder():
    executor, config = Recorder(), MODEL.encoder
    with META:
        net = AudioEncoder(config, MODEL.backbone.hidden_size)
    made = DeviceGraph(executor, net, ("groups",), encoder_rule)
    mel = np.zeros((3, config.num_mel_bins, config.window_frames), np.float32)
    made.prepare([{"mel": mel, "frames": np.ones(3, np.int64), "keep": np.ones(3, np.int64)}])
    return executor, made


def record(executor):
    return {"recordings": executor.count, "problems": sorted(set(executor.problems)), "lost": executor.lost()}


def main():
    count_variants()
    launch.processors = flow_attention.processors = lambda device: PROCESSORS
    result = {}
    for linear, fused, streams in (("dense", False, 64), ("dense", True, 8), ("int8", False, 8)):
        asked.clear()
        executor, before, loop = language(linear, fused, streams)
        name = f"language {linear}{' fused' * fused}"
        result[name] = record(executor) | {"variants": before, "later": asked[before:]}
        del loop
    for linear in ("dense", "int8"):
        asked.clear()
        executor, before, loop = language(linear, False, 64, MIXTURE)
        result[f"experts {linear}"] = record(executor) | {"variants": before, "later": asked[before:]}
        del loop
    with torch.inference_mode():
        for name, make in {"flow": lambda: flow(2), "vocoder": lambda: vocoder(2), "encoder": encoder}.items():
            asked.clear()
            executor, made = make()
            result[name] = record(executor) | {"variants": len(asked)}
            del made
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
