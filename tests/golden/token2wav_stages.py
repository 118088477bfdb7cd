"""Both stages of token2wav on the golden nets, over torch and over exported graphs, and calls of them."""

import numpy as np
import token2wav_data as data
from token2wav_data import VOICE

from runtime.token2wav.build import onnx_flow, onnx_vocoder
from runtime.token2wav.flow.net import EulerStep, FlowFront
from runtime.token2wav.flow.stage import FlowStage, read_voice_vectors
from runtime.token2wav.hops import ChunkCutter, HopPolicy
from runtime.token2wav.layout import DEFAULT_WINDOW, MEL_NOISE, SOURCE_NOISE, VOICES, Sizes
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder.stage import VocoderStage

MAX_STREAMS = 8


def torch_stages(folder, window=DEFAULT_WINDOW, full_attention=False):
    nets, sizes = data.nets(), Sizes.read(folder)
    front = data.torch_graph(FlowFront(nets.flow).eval(), ["mu", "speaker"])
    step = data.torch_graph(EulerStep(nets.flow).eval(), ["next", "keys_values", "next_tails"])
    voices, noise = read_voice_vectors(folder / VOICES), Noise(folder / MEL_NOISE, axis=1)
    flow = FlowStage(sizes, front, step, voices, noise, MAX_STREAMS, window, full_attention)
    graph = data.torch_graph(nets.vocoder, ["audio", "f0"])
    return flow, VocoderStage(sizes, graph, Noise(folder / SOURCE_NOISE, axis=0), MAX_STREAMS)


def onnx_stages(folder, **options):
    return onnx_flow(folder, 1, MAX_STREAMS, **options), onnx_vocoder(folder, 1, MAX_STREAMS)


def call(stages, ids, flags, token_lists):
    """One call of both stages; mel and sound with their lengths."""
    flow, vocoder = stages
    keys = {"stream_ids": np.array(ids), "chunk_flags": np.array([int(flag) for flag in flags], np.int32)}
    chunk = {
        "voices": np.array([VOICE.encode()] * len(ids), np.object_),
        "tokens": np.array([t for tokens in token_lists for t in tokens], np.int32),
        "token_lengths": np.array([len(tokens) for tokens in token_lists], np.int32),
    }
    mel = flow.run(keys | chunk)
    return mel | vocoder.run(keys | mel)


def render(stages, tokens, hops, group=5):
    """Streams tokens in groups; returns the mel and sound of each chunk."""
    cutter = ChunkCutter(HopPolicy(hops))
    cuts = [cut for i in range(0, len(tokens), group) for cut in cutter.push(tokens[i : i + group])]
    out = [call(stages, [1], [cut.flag], [cut.tokens]) for cut in cuts + cutter.finish()]
    assert not stages[0].states and not stages[1].states
    return [chunk["mel"] for chunk in out], [chunk["audio"] for chunk in out]


def tokens_of(case):
    return data.vectors()[f"{case}_tokens"].tolist()
