"""The whole decode against the authors' generate(): every id of every run, alone and batched."""

from functools import cache, partial

import chat_data as data
import numpy as np
import pytest
import torch

from kernels.sampler import probabilities
from runtime.checkpoint.weights import load_weights
from runtime.engines.build import build_frame_loop
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.tensors import encoder_shapes
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.sampling import Sampler, seeded_uniforms

pytestmark = pytest.mark.golden
OPTIONS = EngineOptions(max_streams=8, max_positions=512, kv_positions=4096)


@cache
def encoder():
    config: ModelConfig = data.config()
    weights = load_weights(config.directory, encoder_shapes(config.encoder, 64), torch.float32)
    return AudioEncoder(config.encoder, 64).load(weights)


@cache
def audio_embeds(name):
    """Placeholders' rows of a case from its sound, by our own encoder."""
    run = data.run(name)
    if data.cases()[name]["json_audio"]:  # discrete history: the protocol cannot say it, the loop can
        return run["prefill_inputs_embeds"][run["prompt_ids"] == data.config().text_ids.audio]
    clips = [data.wav(clip) for clip in data.cases()[name]["wavs"]]
    if not clips:
        return np.zeros((0, 64), np.float32)
    sizes = data.config().encoder
    shape = WindowShape(sizes.window_frames, sizes.window_groups, sizes.group_size)

    def graph(*arrays):
        with torch.inference_mode():
            return encoder()(*map(torch.from_numpy, arrays)).numpy()

    mels = [log_mel(clip, data.config().features) for clip in clips]
    frames = [speech_frames(len(clip), 16000) for clip in clips]
    return np.concatenate(encode_clips(mels, frames, shape, graph, 64))


def decode(loop, names):
    """Runs the cases together, one joining per step, and returns their ids."""
    waiting = [data.stream(name, audio_embeds(name), key) for key, name in enumerate(names)]
    streams, texts, codes = list(waiting), {}, {}
    while waiting or loop.scheduler.live or loop.scheduler.waiting:
        if waiting:
            loop.add(waiting.pop(0))
        for item in loop.step():
            texts.setdefault(item.stream, []).append(item.frame.text_id)
            codes.setdefault(item.stream, []).extend(item.frame.codes)
    return [(texts[s], codes.get(s, [])) for s in streams]


def check(name, texts, codes):
    golden = data.run(name)
    assert texts == golden["text_ids"].tolist()
    assert codes == golden.get("speech_ids", np.zeros(0)).tolist()


@pytest.mark.parametrize("chunk", [16, 64, 256])
@pytest.mark.parametrize("name", [name for name, case in data.cases().items() if not case["do_sample"]])
def test_greedy_run(name, chunk):
    loop = build_frame_loop(data.config(), EngineOptions(2, 512, 1024, chunk))
    [(texts, codes)] = decode(loop, [name])
    check(name, texts, codes)


@pytest.mark.parametrize("name", [name for name, case in data.cases().items() if case["do_sample"]])
def test_sampled_run_with_the_recorded_random_numbers(name, monkeypatch):
    """Every id, and the processed distributions of the recorded forwards in the order of their draws."""
    distributions = []

    def recording(*arguments):
        distributions.append(probabilities(*arguments))
        return distributions[-1]

    monkeypatch.setattr("runtime.sampling.probabilities", recording)
    text_greedy = data.cases()[name]["text_greedy"]
    uniforms = partial(data.recorded_uniforms, numbers=data.run(name)["uniforms"], text_greedy=text_greedy)
    loop = build_frame_loop(data.config(), OPTIONS, Sampler(5, uniforms))
    [(texts, codes)] = decode(loop, [name])
    check(name, texts, codes)
    golden = data.run(name)
    recorded = golden["probs_indptr"]
    assert len(recorded) > 60
    for found, begin, end in zip(distributions, recorded[:-1], recorded[1:], strict=False):
        ids = golden["probs_ids"][begin:end]
        assert found[0].nonzero()[:, 0].tolist() == ids.tolist()
        np.testing.assert_allclose(found[0, ids], golden["probs_values"][begin:end], atol=1e-4, rtol=0)


def test_a_step_is_one_packed_call_of_each_engine():
    """However many streams there are, joining ones included: one backbone call, five of the speech head."""
    loop = build_frame_loop(data.config(), OPTIONS)
    calls = []
    for name in ("_backbone", "_speech"):
        engine = getattr(loop._model, name)
        monitored = engine.run

        def run(inputs, bindings, name=name, monitored=monitored):
            calls.append((name, bindings["host_request_types"].tolist()))
            return monitored(inputs, bindings)

        engine.run = run
    for key, name in enumerate(["s2s_noise_2p3s", "s2s_tones_7s", "s2t_mix_31s"]):
        loop.add(data.stream(name, audio_embeds(name), key))
    loop.step()
    loop.add(data.stream("s2s_chirp_0p5s", audio_embeds("s2s_chirp_0p5s"), 9))
    calls.clear()
    loop.step()
    assert [name for name, _ in calls] == ["_backbone"] + ["_speech"] * 5
    assert calls[0][1] == [0, 1, 1, 1], "the joining context first, then every running stream"
    assert calls[1][1] == [0, 1, 1] and calls[2][1] == [1, 1, 1], "text-only streams skip the speech head"


def test_all_greedy_runs_batched():
    """Eight slots, streams joining step by step: batching and paging change no id."""
    names = [name for name, case in data.cases().items() if not case["do_sample"]]
    loop = build_frame_loop(data.config(), OPTIONS)
    blocks = loop.scheduler.free_blocks
    for name, (texts, codes) in zip(names, decode(loop, names), strict=True):
        check(name, texts, codes)
    assert loop.scheduler.free_blocks == blocks


def test_sampled_runs_do_not_depend_on_the_batch():
    names = ["s2s_sample_textgreedy", "s2s_sample_both"]
    alone = [decode(build_frame_loop(data.config(), OPTIONS), [name])[0] for name in names]
    crowd = decode(build_frame_loop(data.config(), OPTIONS), [*names, "s2s_tones_7s", "s2t_mix_31s", "s2s_rep"])
    assert crowd[:2] == alone


def test_seeds_differ():
    first = seeded_uniforms([data.stream("s2s_rep", np.zeros((0, 64)))], 6)
    assert first.shape == (1, 6) and ((first >= 0) & (first < 1)).all() and len(set(first.ravel())) == 6
