"""Flow and vocoder against the authors' code: stage by stage, then streamed through the exported graphs."""

import numpy as np
import pytest
import token2wav_data as data
import torch
import torch.nn.functional as F

from builders.export_token2wav import export_token2wav
from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.token2wav.build import build_flow, build_vocoder
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow import EulerStep, Flow, time_grid
from runtime.token2wav.hops import ChunkCutter, HopPolicy
from runtime.token2wav.noise_recipe import draw_noise
from runtime.token2wav.vocoder import Vocoder
from runtime.token2wav.weights import load_module

pytestmark = pytest.mark.golden
FRAME, TOKEN = 480, 960
D, E, C25 = (15, 10, 25), (15, 10, 10, 15, 25), (25,)
VOICE = "中文女"


@pytest.fixture(scope="module")
def cosyvoice(tmp_path_factory):
    path = tmp_path_factory.mktemp("cosyvoice")
    data.materialise_cosyvoice(path)
    return path


@pytest.fixture(scope="module")
def config(cosyvoice):
    return Token2WavConfig.read(cosyvoice)


@pytest.fixture(scope="module")
def noise(config):
    return draw_noise(config, seconds=8)


@pytest.fixture(scope="module")
def flow(config):
    return load_module(Flow(config.flow), config.directory / "flow.pt")


@pytest.fixture(scope="module")
def vocoder(config):
    return load_module(Vocoder(config.hift), config.directory / "hift.pt")


@pytest.fixture(scope="module")
def exported(cosyvoice, tmp_path_factory):
    """The built folder of the golden net, with 10 s of its noise."""
    folder = tmp_path_factory.mktemp("token2wav")
    export_token2wav(cosyvoice, folder, None, noise_seconds=10)
    return folder


@pytest.fixture
def stages(exported):
    return build_flow(exported, 1, 8), build_vocoder(exported, 1, 8)


def close(found, expected, tolerance):
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance, rtol=0)


def padded_tokens(name, lookahead):
    tokens = torch.from_numpy(data.vectors()[f"{name}_tokens"].astype(np.int64))[None]
    valid = torch.ones(tokens.shape)
    return F.pad(tokens, (0, lookahead)), F.pad(valid, (0, lookahead))


def test_time_grid():
    times, widths = time_grid()
    close(times, data.vectors()["t"], 0)
    close(widths, data.vectors()["dt"], 0)


@torch.inference_mode()
def test_conditioning(flow, config):
    golden = data.vectors()
    tokens, valid = padded_tokens("T063", config.flow.lookahead)
    close(flow.condition(tokens, valid)[0], golden["T063_mu_final"], 1e-4)
    close(flow.condition(tokens[:, :63], valid[:, :63])[0], golden["T063_mu_part"], 1e-4)
    table = torch.load(config.directory / "spk2info.pt", weights_only=True)
    close(flow.project_speaker(table[VOICE]["embedding"])[0], golden["speaker_projected"], 1e-6)


@pytest.mark.parametrize(("mask", "final"), [("chunk", True), ("full", False)])
@torch.inference_mode()
def test_mel_under_both_masks(flow, config, noise, mask, final):
    tokens, valid = padded_tokens("T063", config.flow.lookahead)
    if not final:
        tokens, valid = tokens[:, :63], valid[:, :63]
    mu = flow.condition(tokens, valid)
    table = torch.load(config.directory / "spk2info.pt", weights_only=True)
    speaker = flow.project_speaker(table[VOICE]["embedding"])
    frames = mu.shape[2]
    x, step = torch.from_numpy(noise[0])[None, :, :frames], EulerStep(flow).eval()
    everything = torch.ones(1, frames, frames, dtype=torch.bool)
    for k in range(10):
        number = torch.tensor([k])
        if mask == "chunk":
            x = step(x, mu, speaker, torch.tensor([frames]), torch.tensor([50]), number)
        else:
            x = step.advance(x, mu, speaker, torch.zeros_like(x), everything, number)
    close(x[0], data.vectors()["T063_mel_chunk_final" if final else "T063_mel_full_part"], 1e-4)


@torch.inference_mode()
def test_vocoder_stage_by_stage(vocoder, noise):
    golden = data.vectors()
    mel = torch.from_numpy(golden["T028_mel_full_final"])[None]
    frames = mel.shape[2]
    close(vocoder.f0_predictor(F.pad(mel, (0, 3)))[0], golden["T028_f0_final"], 1e-3)
    uniform = torch.from_numpy(noise[1])[None, : frames * FRAME]
    source = vocoder.source(torch.from_numpy(golden["T028_f0_final"])[None], torch.zeros(1, 9), uniform)
    close(source[0, 0], golden["T028_source_final"], 1e-2)
    sound = vocoder.decode(F.pad(mel, (0, 4)), torch.from_numpy(golden["T028_source_final"])[None, None])
    close(sound[0, ::8], golden["T028_wav_final_every_8"], 1e-5)


@torch.inference_mode()
def test_vocoder_with_more_to_come(vocoder, noise):
    golden = data.vectors()
    mel = torch.from_numpy(golden["T028_mel_full_final"])[None]
    frames = mel.shape[2]
    uniform = torch.from_numpy(noise[1])[None, : (frames - 3) * FRAME]
    sound, _ = vocoder(mel, mel[:, :, :-3], torch.zeros(1, 9), uniform)
    close(sound[0, : FRAME * (frames - 8) : 8], golden["T028_wav_part_every_8"], 1e-3)


def render(stages, tokens, hops, stream=1, group=5):
    """Streams tokens in groups; returns the mel and sound of each chunk."""
    flow, vocoder = stages
    cutter = ChunkCutter(HopPolicy(hops))
    cuts = [cut for i in range(0, len(tokens), group) for cut in cutter.push(tokens[i : i + group])]
    mels, sounds = [], []
    for cut in cuts + cutter.finish():
        keys = {"stream_ids": np.array([stream]), "chunk_flags": np.array([int(cut.flag)], np.int32)}
        chunk = {
            "voices": np.array([VOICE.encode()], np.object_),
            "tokens": np.array(cut.tokens, np.int32),
            "token_lengths": np.array([len(cut.tokens)], np.int32),
        }
        mel = flow.run(keys | chunk)
        sound = vocoder.run(keys | mel)
        mels.append(mel["mel"])
        sounds.append(sound["audio"])
    return mels, sounds


@pytest.mark.parametrize(
    ("case", "name", "hops", "wav_tolerance"),
    [("T063", "T063_D", D, 4e-4), ("T063", "T063_E", E, 4e-4), ("T063", "C25", C25, 4e-4), ("T200", "T200_D", D, 2e-3)],
)
def test_streaming_equals_the_authors_calls(stages, case, name, hops, wav_tolerance):
    golden = data.vectors()
    tokens = golden[f"{case}_tokens"].tolist()
    mels, sounds = render(stages, tokens, hops)
    assert [len(sound) for sound in sounds] == golden[f"{name}_calls"][:, 4].tolist()
    mel, sound = np.concatenate(mels, axis=1), np.concatenate(sounds)
    if f"{name}_mel" in golden:
        close(mel, golden[f"{name}_mel"], 1e-4)
    else:
        close(mel[:, ::8], golden[f"{name}_mel_every_8"], 1e-4)
    close(sound[::8], golden[f"{name}_wav_every_8"], wav_tolerance)
    assert not stages[0].states and not stages[1].states


def test_mel_of_whole_blocks_equals_the_one_shot_rendering(stages):
    """From token 15 on: the first chunk alone was rendered inside an unfinished block."""
    golden = data.vectors()
    mels, _ = render(stages, golden["T063_tokens"].tolist(), D)
    close(np.concatenate(mels, axis=1)[:, 30:], golden["T063_mel_chunk_final"][:, 30:], 1e-4)


@pytest.mark.parametrize("hops", [D, E, (5, 7)])
def test_no_tail_is_lost_whatever_the_length(stages, hops):
    tokens = data.vectors()["T063_tokens"].tolist()
    for count in [*range(1, 31), 44, 49, 50, 53, 54, 63]:
        _, sounds = render(stages, tokens[:count], hops)
        assert sum(map(len, sounds)) == TOKEN * count


def test_streams_in_one_call_sound_as_alone(stages):
    """Rows of different lengths and positions, padded to one batch."""
    flow, vocoder = stages
    tokens = data.vectors()["T063_tokens"].tolist()
    lengths = (18, 9, 31)
    alone = [np.concatenate(render(stages, tokens[:n], (1000,))[1]) for n in lengths]
    keys = {
        "stream_ids": np.array([7, 8, 9]),
        "chunk_flags": np.full(3, ChunkFlag.START | ChunkFlag.FINAL, np.int32),
    }
    chunk = {
        "voices": np.array([VOICE.encode()] * 3, np.object_),
        "tokens": np.array([t for n in lengths for t in tokens[:n]], np.int32),
        "token_lengths": np.array(lengths, np.int32),
    }
    sound = vocoder.run(keys | flow.run(keys | chunk))
    parts = np.split(sound["audio"], np.cumsum(sound["audio_lengths"])[:-1])
    for part, expected in zip(parts, alone, strict=True):
        close(part, expected, 1e-3)


def test_lost_state_is_said_and_leaves_the_others_alone(stages):
    flow, vocoder = stages
    keys = {
        "stream_ids": np.array([3, 4]),
        "chunk_flags": np.array([ChunkFlag.CONTINUE, ChunkFlag.START | ChunkFlag.FINAL], np.int32),
    }
    chunk = {
        "voices": np.array([VOICE.encode()] * 2, np.object_),
        "tokens": np.array([1, 2, 3, 4, 5, 6], np.int32),
        "token_lengths": np.array([2, 4], np.int32),
    }
    sound = vocoder.run(keys | flow.run(keys | chunk))
    assert sound["audio_lengths"].tolist() == [STATE_LOST, 4 * TOKEN]


def test_release_drops_the_state(stages):
    flow, vocoder = stages
    voices = {"voices": np.array([VOICE.encode()], np.object_)}
    for flag, tokens in ((ChunkFlag.START, range(20)), (ChunkFlag.RELEASE, ())):
        keys = {"stream_ids": np.array([5]), "chunk_flags": np.array([flag], np.int32)}
        chunk = voices | {
            "tokens": np.array(tokens, np.int32),
            "token_lengths": np.array([len(tokens)], np.int32),
        }
        sound = vocoder.run(keys | flow.run(keys | chunk))
        held = int(flag is ChunkFlag.START)
        assert (len(flow.states), len(vocoder.states)) == (held, held)
    assert sound["audio_lengths"].tolist() == [0]
