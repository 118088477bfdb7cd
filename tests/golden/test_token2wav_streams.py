"""Caches, batches, bounds: whatever hops, company and moment, a stream is rendered as if alone and at once."""

import numpy as np
import pytest
import token2wav_data as data
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from token2wav_data import close
from token2wav_stages import MAX_STREAMS, call, onnx_stages, render, tokens_of, torch_stages

from runtime.contracts import ChunkFlag
from runtime.token2wav.flow.net import EulerStep
from runtime.token2wav.flow.past import Past, additive
from runtime.token2wav.hops import ALIGNED_HOPS, STEADY_HOPS, ChunkCutter, HopPolicy

pytestmark = pytest.mark.golden
BLOCK, LOOKAHEAD = 50, 3  # frames, tokens
MEL, SOUND_OF_MEL, SOUND = 1e-4, 1e-4, 1e-3  # the sound of a whole chain integrates the rounding of its mel
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
HOPS = st.lists(st.integers(2, 40), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def stages(exported):
    return onnx_stages(exported)


def some_tokens(count, seed):
    return np.random.default_rng(seed).integers(0, 6561, count).tolist()


def cuts_of(tokens, hops):
    cutter = ChunkCutter(HopPolicy(tuple(hops)))
    return cutter.push(tokens) + cutter.finish()


@torch.inference_mode()
def render_prefix(tokens, final, window):
    """Mel of all frames so far from nothing: plain torch, its mask built here frame by frame."""
    nets = data.nets()
    config, step = nets.config.flow, EulerStep(nets.flow).eval()
    ids = torch.tensor([[0, 0, *tokens] + [0] * LOOKAHEAD * final])
    valid = torch.ones(ids.shape)
    valid[:, :2], valid[:, 2 + len(tokens) :] = 0, 0
    mu = nets.flow.condition(ids, valid)
    frames = mu.shape[2]
    visible = np.zeros((frames, frames), bool)
    for i in range(frames):
        first = max(0, i // BLOCK - window) * BLOCK
        visible[i, first : (i // BLOCK + 1) * BLOCK] = True
    past = Past(
        positions=torch.arange(frames).expand(2, -1),
        mask=additive(torch.from_numpy(visible).expand(2, -1, -1)),
        tails=torch.zeros(2, 2, config.dim, 30),
        kept=torch.zeros(2, dtype=torch.int64),
        layers=lambda _: torch.zeros(2, 2, config.heads, 0, config.head_dim),
    )
    x, speaker = nets.mel_noise[None, :, :frames], nets.flow.project_speaker(nets.voice)
    for k in range(10):
        x, _, _ = step.advance(x, mu, speaker, torch.zeros_like(x), torch.tensor([k]), past)
    return x[0].numpy()


def recompute(tokens, hops, window):
    """New frames of every chunk, each from the whole prefix."""
    mels, known, given_frames = [], 0, 0
    for cut in cuts_of(tokens, hops):
        known += len(cut.tokens)
        final = bool(cut.flag & ChunkFlag.FINAL)
        if known > LOOKAHEAD or final:
            mel = render_prefix(tokens[:known], final, window)
            mels.append(mel[:, given_frames:])
            given_frames = mel.shape[1]
    return np.concatenate(mels, axis=1)


@FEW
@given(hops=HOPS, count=st.integers(1, 190), window=st.integers(0, 5), seed=st.integers(0, 99))
def test_caches_equal_rendering_everything_again(exported, hops, count, window, seed):
    tokens = some_tokens(count, seed)
    mels, _ = render(onnx_stages(exported, window=window), tokens, tuple(hops))
    close(np.concatenate(mels, axis=1), recompute(tokens, hops, window), MEL)


@pytest.mark.parametrize("window", [0, 1, 3, 100])
def test_one_call_equals_chunks_of_whole_blocks(exported, window):
    """A long chunk in pieces, many blocks at once and more than the window holds, and chunks of one block."""
    tokens = some_tokens(240, window)
    [once], _ = render(torch_stages(exported, window=window), tokens, (240,))
    for hops in ((25,), (75, 25, 100), (150, 25)):
        mels, _ = render(torch_stages(exported, window=window), tokens, hops)
        close(np.concatenate(mels, axis=1), once, MEL)


@FEW
@given(
    rows=st.lists(st.tuples(st.integers(1, 120), HOPS), min_size=2, max_size=MAX_STREAMS),
    seed=st.integers(0, 99),
)
def test_uneven_batches_equal_each_stream_alone(stages, rows, seed):
    """Random hops, lengths and positions, joining and leaving at random."""
    chance = np.random.default_rng(seed)
    queues = [cuts_of(some_tokens(count, i), hops) for i, (count, hops) in enumerate(rows)]
    alone = [[call(stages, [0], [cut.flag], [cut.tokens]) for cut in queue] for queue in queues]
    place = [0] * len(rows)
    while open_rows := [i for i, queue in enumerate(queues) if place[i] < len(queue)]:
        ids = [i for i in open_rows if chance.random() < 0.7]
        if not ids:
            continue
        cuts = [queues[i][place[i]] for i in ids]
        out = call(stages, ids, [cut.flag for cut in cuts], [cut.tokens for cut in cuts])
        mels = np.split(out["mel"], np.cumsum(out["mel_lengths"])[:-1], axis=1)
        sounds = np.split(out["audio"], np.cumsum(out["audio_lengths"])[:-1])
        for i, mel, sound in zip(ids, mels, sounds, strict=True):
            close(mel, alone[i][place[i]]["mel"], MEL)
            close(sound, alone[i][place[i]]["audio"], SOUND)
            place[i] += 1
    assert not stages[0].states and not stages[1].states


def test_vocoder_rows_of_one_call_equal_each_alone(stages):
    """Given the same mel: first, middle and last chunks of unlike lengths beside each other."""
    vocoder, mel = stages[1], np.tile(data.vectors()["T063_D_mel"], (1, 3))
    pieces = {1: [30, 20, 50, 50], 2: [14, 12, 90], 3: [200, 7], 4: [1, 3, 9, 60, 2], 5: [8]}
    parts = {i: np.split(mel[:, : sum(sizes)], np.cumsum(sizes)[:-1], axis=1) for i, sizes in pieces.items()}

    def vocode(ids, turn):
        flags = [ChunkFlag.START * (turn == 0) | ChunkFlag.FINAL * (turn + 1 == len(parts[i])) for i in ids]
        keys = {"stream_ids": np.array(ids), "chunk_flags": np.array([int(flag) for flag in flags], np.int32)}
        lengths = np.array([parts[i][turn].shape[1] for i in ids], np.int32)
        out = vocoder.run(keys | {"mel": np.concatenate([parts[i][turn] for i in ids], 1), "mel_lengths": lengths})
        return np.split(out["audio"], np.cumsum(out["audio_lengths"])[:-1])

    alone = {i: [vocode([i], turn)[0] for turn in range(len(parts[i]))] for i in parts}
    for turn in range(max(map(len, parts.values()))):
        ids = [i for i in parts if turn < len(parts[i])]
        for i, sound in zip(ids, vocode(ids, turn), strict=True):
            close(sound, alone[i][turn], SOUND_OF_MEL)
    for i, sounds in alone.items():
        assert sum(map(len, sounds)) == 480 * sum(pieces[i])


@pytest.mark.parametrize("point", range(5))
def test_cancelled_at_any_point_nothing_is_held_and_others_go_on(stages, point):
    flow, vocoder = stages
    tokens = some_tokens(120, 3)
    expected = [call(stages, [0], [cut.flag], [cut.tokens])["mel"] for cut in cuts_of(tokens, ALIGNED_HOPS)]
    for turn, cut in enumerate(cuts_of(tokens, ALIGNED_HOPS)):
        ids, flags, parts = [7], [cut.flag], [cut.tokens]
        if turn <= point:  # a second stream beside it, released in the call number ``point``
            beside = (ChunkFlag.RELEASE, ()) if turn == point else (cut.flag, cut.tokens)
            ids, flags, parts = [7, 8], [*flags, beside[0]], [*parts, beside[1]]
        out = call(stages, ids, flags, parts)
        close(out["mel"][:, : out["mel_lengths"][0]], expected[turn], MEL)
    assert (flow.held_bytes, vocoder.held_bytes) == (0, 0)


@pytest.mark.parametrize("hops", [ALIGNED_HOPS, STEADY_HOPS])
def test_half_precision_stays_close(exported, hops):
    """Products and caches in 16 bit, all else in float32; a longer stream does not drift away."""
    flow = onnx_stages(exported, precision="float16")[0]
    full = onnx_stages(exported)[0]
    tokens = tokens_of("T200")
    keys = {"stream_ids": np.array([1]), "voices": np.array([data.VOICE.encode()], np.object_)}
    errors = []
    for cut in cuts_of(tokens, hops):
        chunk = {
            "chunk_flags": np.array([int(cut.flag)], np.int32),
            "tokens": np.array(cut.tokens, np.int32),
            "token_lengths": np.array([len(cut.tokens)], np.int32),
        }
        errors.append(flow.run(keys | chunk)["mel"] - full.run(keys | chunk)["mel"])
    rms = [float(np.sqrt(np.mean(error**2))) for error in errors]
    assert 0 < np.sqrt(np.mean(np.concatenate(errors, axis=1) ** 2)) <= 1e-3, rms
    assert max(rms) <= 2e-3, rms
