"""The whole decode against the authors' generate(): every id of every run, alone and batched, on every loop."""

from functools import cache

import chat_data as data
import numpy as np
import pytest
import torch
from loops import KINDS, make

from kernels.choice import choose
from kernels.sampler import probabilities
from runtime.checkpoint.weights import load_weights
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.tensors import encoder_shapes
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips

pytestmark = pytest.mark.golden
OPTIONS = EngineOptions(max_streams=8, max_positions=512, kv_positions=4096, lead_s=1e9)
GREEDY = [name for name, case in data.cases().items() if not case["do_sample"]]
SAMPLED = [name for name, case in data.cases().items() if case["do_sample"]]
SOME = ("s2s_noise_2p3s", "s2t_mix_31s", "s2s_rep", "s2s_text_eos", "s2s_noforce")
FEW = ("s2s_tones_7s", "s2t_noise_2p3s", "s2s_noise_2p3s", "s2s_chirp_0p5s")
# Every run alone on the loop of ``cpu``, those that differ most on the others: doubles are slow.
ALONE = [("torch", name, chunk) for name in GREEDY for chunk in (16, 64, 256)] + [
    ("recorded", name, chunk) for name in SOME for chunk in (16, 256)
]
QUICK = [("torch", name, 64) for name in SOME]


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
    """Runs the cases together and returns their ids."""
    return data.answers(loop, [data.stream(name, audio_embeds(name), key) for key, name in enumerate(names)])


def check(name, texts, codes):
    golden = data.run(name)
    assert texts == golden["text_ids"].tolist()
    assert codes == golden.get("speech_ids", np.zeros(0)).tolist()


@pytest.mark.parametrize(
    ("kind", "name", "chunk"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALONE],
)
def test_greedy_run(kind, name, chunk):
    [(texts, codes)] = decode(make(kind, EngineOptions(2, 512, 1024, chunk)).loop, [name])
    check(name, texts, codes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names", "streams", "chunk", "graphs"),
    [
        ("torch", GREEDY, 8, 512, 0),
        ("recorded", GREEDY, 8, 512, 0),
        ("compiled", FEW, 3, 32, 0),
        ("compiled", FEW, 3, 256, 3),
    ],
)
def test_greedy_runs_batched(kind, names, streams, chunk, graphs):
    """Streams joining step by step: batching and paging change no id, and everything is free again."""
    options = EngineOptions(streams, 512, 512 * streams, chunk, lead_s=1e9)
    rig = make(kind, options, graphs=graphs)
    rig.loop.model.prepare()
    blocks = rig.loop.scheduler.free_blocks
    for name, (texts, codes) in zip(names, decode(rig.loop, names), strict=True):
        check(name, texts, codes)
    assert rig.loop.scheduler.free_blocks == blocks
    if rig.doubles:
        assert len(rig.doubles[1].engine._graphs) == graphs, "one to three streams speak together"
        assert all(double.device.waits > 0 for double in rig.doubles)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_run_with_the_recorded_random_numbers(kind, name, monkeypatch):
    """Every id, and the processed distributions of the recorded forwards in the order of their draws."""
    drawn, text_greedy = {}, data.cases()[name]["text_greedy"]
    numbers = data.run(name)["uniforms"].reshape(-1, 5 if text_greedy else 6)
    # A loop that is ahead queues one frame more than the authors ran before the end is known.
    numbers = np.concatenate([numbers, np.full((2, numbers.shape[1]), 0.5)])

    def draws(slots, number):
        forward = int(rig.loop.model.state.forwards[slots[0]])
        drawn[forward, number] = distributions[-1]
        return torch.tensor([numbers[forward, number]], dtype=torch.float64)

    distributions = []

    def recording(*arguments):
        distributions.append(probabilities(*arguments))
        return distributions[-1]

    monkeypatch.setattr(f"{choose.__module__}.probabilities", recording)
    rig = make(kind, EngineOptions(2, 512, 1024), draws=draws)
    [(texts, codes)] = decode(rig.loop, [name])
    check(name, texts, codes)
    golden = data.run(name)
    recorded = golden["probs_indptr"]
    assert len(recorded) > 60
    for key, begin, end in zip(sorted(drawn), recorded[:-1], recorded[1:], strict=False):
        ids = golden["probs_ids"][begin:end]
        assert drawn[key][0].nonzero()[:, 0].tolist() == ids.tolist()
        np.testing.assert_allclose(drawn[key][0, ids], golden["probs_values"][begin:end], atol=1e-4, rtol=0)


def test_a_step_is_one_packed_call_of_each_engine():
    """However many streams there are, joining ones included: one backbone call, five of the speech head."""
    rig, calls = make("torch", OPTIONS), []

    def counting(stack):
        def wrapper(run):
            def call(inputs, bindings):
                calls.append((stack, bindings["host_request_types"].tolist()))
                return run(inputs, bindings)

            return call

        return wrapper

    for stack in ("backbone", "speech"):
        rig.wrap(stack, counting(stack))
    for key, name in enumerate(["s2s_noise_2p3s", "s2s_tones_7s", "s2t_mix_31s"]):
        rig.loop.add(data.stream(name, audio_embeds(name), key))
    rig.loop.step()
    rig.loop.add(data.stream("s2s_chirp_0p5s", audio_embeds("s2s_chirp_0p5s"), 9))
    calls.clear()
    rig.loop.step()
    assert [name for name, _ in calls] == ["backbone"] + ["speech"] * 5
    assert calls[0][1] == [0, 1, 1, 1], "the joining context first, then every running stream"
    assert calls[1][1] == [0, 1, 1] and calls[2][1] == [1, 1, 1], "text-only streams skip the speech head"


@pytest.mark.slow
def test_sampled_runs_do_not_depend_on_the_batch_or_the_loop():
    names = ["s2s_sample_textgreedy", "s2s_sample_both"]
    alone = [decode(make("torch", OPTIONS).loop, [name])[0] for name in names]
    crowd = [*names, "s2s_tones_7s", "s2t_mix_31s", "s2s_rep"]
    for kind in KINDS:
        assert decode(make(kind, OPTIONS).loop, crowd)[:2] == alone, kind
