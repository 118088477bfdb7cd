"""No seams: chunk boundaries of long answers against other frame edges of the same rendering.

Every measure is tried on a vocoder that renders chunks by themselves, or that forgets its phase, too: what
cannot see a seam proves nothing.
"""

from copy import deepcopy

import numpy as np
import pytest
import token2wav_data as data
import torch
from token2wav_stages import MAX_STREAMS, call, onnx_stages

from runtime.contracts import ChunkFlag
from runtime.token2wav.hops import EARLIEST_HOPS, STEADY_HOPS, ChunkCutter, HopPolicy
from runtime.token2wav.layout import SOURCE_NOISE, Sizes
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder.stage import VocoderStage

pytestmark = pytest.mark.golden
FRAME, SPAN = 480, 24  # samples; 1 ms
# Boundaries of an answer are few, so their mean strays from that of all frame edges by chance.
CHANCE = 1.6


def answers(stages, count, tokens, hops):
    """Streams of random tokens, eight in a call: sound, mel and the samples at which each one's chunks begin."""
    random, out = np.random.default_rng(5), []
    for begin in range(0, count, MAX_STREAMS):
        ids = range(begin, min(count, begin + MAX_STREAMS))
        cutters = [ChunkCutter(HopPolicy(hops)) for _ in ids]
        rows = [cutter.push(random.integers(0, 6561, tokens).tolist()) + cutter.finish() for cutter in cutters]
        turns = [
            call(stages, list(ids), *zip(*((c.flag, c.tokens) for c in cuts), strict=True))
            for cuts in zip(*rows, strict=True)
        ]
        for i in range(len(ids)):
            mels = [np.split(t["mel"], np.cumsum(t["mel_lengths"])[:-1], axis=1)[i] for t in turns]
            sounds = [np.split(t["audio"], np.cumsum(t["audio_lengths"])[:-1])[i] for t in turns]
            out.append((np.concatenate(sounds), np.concatenate(mels, axis=1), np.cumsum([len(s) for s in sounds])[:-1]))
    return out


def steps(sound, edges):
    """Squared step from one sample to the next."""
    return (sound[edges] - sound[edges - 1]) ** 2


def energy_steps(sound, edges):
    """How much louder or softer the millisecond after an edge are than the one before."""
    energy = np.array([[np.mean(part**2) for part in np.split(sound[e - SPAN : e + SPAN], 2)] for e in edges])
    return np.abs(np.log(energy[:, 1] / energy[:, 0]))


def excess(measure, found):
    """Mean at chunk boundaries over mean at all other frame edges."""
    at, inside = [], []
    for sound, _, boundaries in found:
        edges = np.arange(1, len(sound) // FRAME) * FRAME
        at.append(measure(sound, boundaries))
        inside.append(measure(sound, np.setdiff1d(edges, boundaries)))
    return np.concatenate(at).mean() / np.concatenate(inside).mean()


@pytest.fixture(scope="module")
def stages(exported):
    return onnx_stages(exported)


@pytest.fixture(scope="module")
def long_answers(stages):
    return answers(stages, 4, 500, STEADY_HOPS)


@pytest.mark.parametrize("measure", [steps, energy_steps])
def test_long_answers(long_answers, measure):
    assert sum(len(boundaries) for _, _, boundaries in long_answers) > 80
    assert 1 / CHANCE < excess(measure, long_answers) < CHANCE
    for sound, _, boundaries in long_answers:
        edges = np.arange(1, len(sound) // FRAME) * FRAME
        assert measure(sound, boundaries).max() <= measure(sound, np.setdiff1d(edges, boundaries)).max()


@pytest.mark.parametrize("hops", [STEADY_HOPS, EARLIEST_HOPS])
def test_first_boundaries(stages, hops):
    """The first chunk is cut inside a block, so its frames saw less than those that follow."""
    found = [(sound, mel, b[:1]) for sound, mel, b in answers(stages, 48, hops[0] + hops[1] + 3, hops)]
    assert excess(steps, found) < CHANCE and excess(energy_steps, found) < CHANCE
    first = 2 * hops[0]
    changes = np.stack([np.abs(np.diff(mel, axis=1)).mean(axis=0) for _, mel, _ in found])
    inside = np.delete(changes, first - 1, axis=1)
    assert changes[:, first - 1].mean() < CHANCE * inside.mean()


class ChunkByChunk:
    """A vocoder that knows nothing of the chunks beside each one."""

    def __init__(self, vocoder):
        self._vocoder, self.states = vocoder, ()

    def run(self, arrays):
        once = np.full_like(arrays["chunk_flags"], int(ChunkFlag.START | ChunkFlag.FINAL))
        return self._vocoder.run(arrays | {"chunk_flags": once})


@pytest.mark.parametrize("measure", [steps, energy_steps])
def test_the_measures_see_chunks_that_are_rendered_by_themselves(stages, measure):
    seams = answers((stages[0], ChunkByChunk(stages[1])), 4, 500, STEADY_HOPS)
    assert excess(measure, seams) > 1.25 * CHANCE


TONE_HZ, PERIOD = 162.5, 4  # 3.25 turns a frame: the sound of a steady mel repeats every four frames


def tone(exported, pieces, forget=False):
    """A steady mel in pieces, through a vocoder whose pitch is that of the tone."""
    vocoder = deepcopy(data.nets().vocoder)
    with torch.no_grad():
        vocoder.f0_predictor.classifier.weight.zero_()
        vocoder.f0_predictor.classifier.bias.fill_(TONE_HZ)
    graph = data.torch_graph(vocoder, ["audio", "f0"])
    stage = VocoderStage(Sizes.read(exported), graph, Noise(exported / SOURCE_NOISE, 0), MAX_STREAMS)
    mel = np.repeat(data.vectors()["T063_D_mel"][:, 40:41], sum(pieces), axis=1)
    out = []
    for i, part in enumerate(np.split(mel, np.cumsum(pieces)[:-1], axis=1)):
        flag = ChunkFlag.START * (i == 0) | ChunkFlag.FINAL * (i + 1 == len(pieces))
        keys = {"stream_ids": np.array([1]), "chunk_flags": np.array([int(flag)], np.int32)}
        out.append(stage.run(keys | {"mel": part, "mel_lengths": np.array([part.shape[1]], np.int32)})["audio"])
        if forget and stage.states.get(1) is not None:
            stage.states.get(1).turns[:] = 0.0
    return np.concatenate(out), np.cumsum([len(sound) for sound in out])[:-1]


def strangeness(sound, places):
    """How much a frame that begins at a place differs from the one a period later."""
    ahead = PERIOD * FRAME
    return np.array(
        [np.sqrt(np.mean((sound[p + ahead : p + ahead + FRAME] - sound[p : p + FRAME]) ** 2)) for p in places]
    )


def phase_excess(sound, boundaries):
    """Where the frame or its repetition is on the other side of a boundary, against everywhere else."""
    places = np.arange(50, len(sound) // FRAME - 50) * FRAME
    near = np.array([np.any((boundaries >= p) & (boundaries <= p + PERIOD * FRAME)) for p in places])
    assert near.any() and not near.all()
    return strangeness(sound, places[near]).max() / strangeness(sound, places[~near]).max()


def test_the_phase_of_a_steady_tone_runs_through_all_boundaries(exported):
    pieces = [30, 20, 20, 31, 50, 50, 49, 50, 101, 50, 23]
    sound, boundaries = tone(exported, pieces)
    assert phase_excess(sound, boundaries) < 1.2
    broken, boundaries = tone(exported, pieces, forget=True)
    assert phase_excess(broken, boundaries) > 3, "the measure sees a phase that begins anew"
