"""The golden set of the backbone with experts: what differs from that of the dense one, whose other files it shares."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import chat_data
import numpy as np
import torch

from runtime.checkpoint.weights import load_weights
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.tensors import encoder_shapes
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.scheduling.stream import Stream

FOLDER = Path(__file__).parent / "fun_audio_chat_moe"
NAMES = list(chat_data.cases(FOLDER))
HIDDEN = 64


@cache
def checkpoint() -> Path:
    """A whole checkpoint: tokenizer and the like are those of the dense one."""
    folder = Path(tempfile.mkdtemp(prefix="golden_moe_"))
    atexit.register(shutil.rmtree, folder, True)
    for source in (chat_data.CHECKPOINT, FOLDER / "checkpoint"):
        for path in source.iterdir():
            shutil.copy(path, folder / path.name)
    return folder


@cache
def config() -> ModelConfig:
    return ModelConfig.read(checkpoint())


def run(name: str) -> dict[str, np.ndarray]:
    return chat_data.run(name, FOLDER)


@cache
def encoder() -> AudioEncoder:
    weights = load_weights(checkpoint(), encoder_shapes(config().encoder, HIDDEN), torch.float32)
    return AudioEncoder(config().encoder, HIDDEN).load(weights)


@cache
def audio_embeds(name: str) -> np.ndarray:
    """Placeholders' rows of a case from its sound, by our own encoder."""
    clips = [chat_data.wav(clip) for clip in chat_data.cases(FOLDER)[name]["wavs"]]
    if not clips:
        return np.zeros((0, HIDDEN), np.float32)
    sizes = config().encoder
    shape = WindowShape(sizes.window_frames, sizes.window_groups, sizes.group_size)

    def graph(*arrays: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encoder()(*map(torch.from_numpy, arrays)).numpy()

    mels = [log_mel(clip, config().features) for clip in clips]
    frames = [speech_frames(len(clip), 16000) for clip in clips]
    return np.concatenate(encode_clips(mels, frames, shape, graph, HIDDEN))


def stream(name: str, key: int = 0) -> Stream:
    return chat_data.stream(name, audio_embeds(name), key, FOLDER)


def decode(loop, names):
    """Runs the cases together, one joining per step; whatever they are, every id must be the authors'."""
    found = chat_data.answers(loop, [stream(name, key) for key, name in enumerate(names)])
    for name, (texts, codes) in zip(names, found, strict=True):
        golden = run(name)
        assert texts == golden["text_ids"].tolist(), name
        assert codes == golden["speech_ids"].tolist(), name
