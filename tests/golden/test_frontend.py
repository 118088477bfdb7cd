"""Log-mel, encoder, tokenizer and prompt against the authors' processor and encoder."""

import csv
import json

import chat_data as data
import numpy as np
import pytest
import torch

from runtime.checkpoint.weights import load_weights
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.prompt import PromptBuilder
from runtime.families.fun_audio_chat.tensors import encoder_shapes
from runtime.frontend.mel import log_mel, placeholders, speech_frames
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.frontend.windows import WindowShape, encode_clips

pytestmark = pytest.mark.golden
CLIPS = ("chirp_0p5s", "noise_2p3s", "tones_7s", "mix_31s")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def encoder():
    config = data.config()
    weights = load_weights(config.directory, encoder_shapes(config.encoder, config.backbone.hidden_size), torch.float32)
    return AudioEncoder(config.encoder, config.backbone.hidden_size).load(weights)


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(data.CHECKPOINT)


@pytest.mark.parametrize("clip", CLIPS)
def test_log_mel(clip):
    golden = data.prefill(f"s2s_{clip}")
    mel = log_mel(data.wav(clip), data.config().features)
    assert mel.shape[1] == golden["feature_frames_valid"]
    expected = golden.get("input_features")
    if expected is None:
        mel, expected = mel[:, ::16], golden["input_features_every_16"]
    np.testing.assert_allclose(mel, expected, atol=TOLERANCE, rtol=0)


def windows_of(mel, frames):
    batch = np.zeros((-(-mel.shape[1] // frames), mel.shape[0], frames), np.float32)
    lengths = []
    for i in range(len(batch)):
        part = mel[:, i * frames : (i + 1) * frames]
        batch[i, :, : part.shape[1]] = part
        lengths.append(part.shape[1])
    return torch.from_numpy(batch), torch.tensor(lengths)


@pytest.mark.parametrize("clip", CLIPS[:2])
def test_encoder_inside(encoder, clip):
    golden = data.prefill(f"s2s_{clip}")
    mel, lengths = windows_of(golden["input_features"], data.config().encoder.window_frames)
    with torch.inference_mode():
        rows, valid = encoder.embed(mel, lengths)
        np.testing.assert_allclose(rows[valid], golden["enc_embed"], atol=TOLERANCE, rtol=0)
        out = encoder.rows(mel, lengths, (lengths + 1) // 4)
    flat = out.flatten(0, 1)[: len(golden["enc_pooled"])]
    np.testing.assert_allclose(flat, golden["encoder_output"][: len(flat)], atol=TOLERANCE, rtol=0)
    assert not golden["encoder_output"][len(flat) :].any()


def graph(encoder):
    def call(mel, frames, keep):
        with torch.inference_mode():
            return encoder(*map(torch.from_numpy, (mel, frames, keep))).numpy()

    return call


@pytest.mark.parametrize("max_windows", [1, 3, 64])
def test_grouped_embeddings_of_all_clips_in_one_batch(encoder, max_windows):
    config = data.config()
    shape = WindowShape(config.encoder.window_frames, config.encoder.window_groups, config.encoder.group_size)
    clips = [data.wav(clip) for clip in CLIPS]
    mels = [log_mel(clip, config.features) for clip in clips]
    frames = [speech_frames(len(clip), 16000) for clip in clips]
    embeds = encode_clips(mels, frames, shape, graph(encoder), max_windows)
    for clip, rows in zip(CLIPS, embeds, strict=True):
        expected = data.prefill(f"s2s_{clip}")["audio_embeds"]
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, atol=TOLERANCE, rtol=0)


def test_length_table():
    with (data.FOLDER / "length_table.csv").open() as file:
        rows = [{k: int(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert len(rows) > 30
    for row in rows:
        samples = row["samples"]
        assert speech_frames(samples, 16000) == row["speech_frames"]
        assert placeholders(samples, 16000, 5) == row["audio_placeholders"]
        assert -(-samples // 160) == row["mel_frames_valid"]


@pytest.mark.parametrize(
    "case", json.loads((data.FOLDER / "tokenizer_cases.json").read_text()), ids=lambda c: c["text"][:12]
)
def test_tokenizer(tokenizer, case):
    assert tokenizer.encode(case["text"]) == case["ids"]
    stream = tokenizer.stream()
    assert "".join(map(stream.push, case["ids"])) + stream.finish() == case["decoded_skip_special"]


@pytest.mark.parametrize("name", [name for name, case in data.cases().items() if not case["json_audio"]])
def test_prompt_ids(tokenizer, name):
    clips = [len(data.wav(clip)) for clip in data.cases()[name]["wavs"]]
    ids = PromptBuilder(data.config(), tokenizer).build(data.messages(name), clips)
    assert ids.tolist() == data.run(name)["prompt_ids"].tolist()
