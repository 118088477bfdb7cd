"""Recorded questions asked of this project: its prompt and its audio rows, to lay beside the authors'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.parity.report import BOUNDS
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.device_encoder import device_encoder
from runtime.families.fun_audio_chat.encoder_stage import encoder_profile
from runtime.families.fun_audio_chat.prompt import AUDIO_TURN, PromptBuilder
from runtime.frontend.mel import log_mel, speech_frames
from runtime.frontend.options import EncoderOptions
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.frontend.windows import WindowShape, encode_clips
from runtime.graphs.options import TORCH
from runtime.graphs.recorded import DeviceGraph
from runtime.requests.messages import Message
from runtime.scheduling.stream import Prompt

AUDIO_FOLDER = "audio"


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked. ``clips``: per audio part [samples] float32 at the extractor's rate."""

    messages: tuple[Message, ...]
    clips: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """Our side of one question: ids of the prompt that agree, and the encoder's error.

    ``rows_error``: as a fraction of the largest value, in float32 on any target; None without sound.
    """

    prompt: str
    rows_error: float | None
    passed: bool


def read_question(folder: Path, case: Mapping[str, Any], sample_rate: int) -> Question | None:
    """The question of a manifest's case, or None where it cannot be asked here: history as codes, or not recorded.

    Raises:
        BuildError: its sound is missing, is unreadable, or has another rate.
    """
    if "conversation" not in case or case.get("json_audio"):
        return None
    clips = tuple(_clip(folder / AUDIO_FOLDER, name, sample_rate) for name in case.get("wavs", ()))
    return Question(messages_of(case["conversation"]), clips)


def messages_of(conversation: Sequence[Mapping[str, str]]) -> tuple[Message, ...]:
    """Turns as the authors' template takes them; lines that are an audio turn stand for a clip."""

    def parts(content: str) -> tuple[str | None, ...]:
        if AUDIO_TURN not in content:
            return (content,)
        return tuple(None if line == AUDIO_TURN else line for line in content.split("\n"))

    return tuple(Message(turn["role"], parts(turn["content"])) for turn in conversation)


def _clip(folder: Path, name: str, sample_rate: int) -> np.ndarray:
    import soundfile  # a machine that asks no question has no library for sound

    found = sorted(folder.glob(f"{name}.*"))
    remedy = "record the authors' runs again"
    if not found:
        raise BuildError(f"{AUDIO_FOLDER}/{name}", f"is not in {folder.parent}", remedy)
    try:
        samples, rate = soundfile.read(found[0], dtype="float32")
    except soundfile.LibsndfileError as error:
        raise BuildError(str(found[0]), f"cannot be read ({error})", remedy) from None
    if rate != sample_rate or samples.ndim != 1:
        raise BuildError(str(found[0]), f"is no mono sound of {sample_rate} Hz", remedy)
    return np.asarray(samples, np.float32)


class FrontEnd:
    """Tokenizer, template, log-mel and encoder of a checkpoint.

    Args:
        device: of the encoder, which is float32 everywhere.
    """

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.device, self._config = device, config

    def prompt(self, question: Question) -> np.ndarray:
        """Ids [length] int64."""
        return self._prompts.build(question.messages, [len(clip) for clip in question.clips])

    @cached_property
    def _prompts(self) -> PromptBuilder:
        return PromptBuilder(self._config, ChatTokenizer(self._config.directory))

    def rows(self, question: Question) -> np.ndarray:
        """Embeddings of the placeholders of all clips, one or more [positions, hidden] float32."""
        config, encoder = self._config, self._config.encoder
        mels = [log_mel(clip, config.features) for clip in question.clips]
        frames = [speech_frames(len(clip), config.features.sample_rate) for clip in question.clips]
        shape = WindowShape(encoder.window_frames, encoder.window_groups, encoder.group_size)
        return np.concatenate(encode_clips(mels, frames, shape, self._encode, self._options.max_windows))

    def _encode(self, mel: np.ndarray, frames: np.ndarray, keep: np.ndarray) -> np.ndarray:
        return self._encoder.run({"mel": mel, "frames": frames, "keep": keep})["groups"]

    @cached_property
    def _options(self) -> EncoderOptions:
        encoder, hidden = self._config.encoder, self._config.backbone.hidden_size
        return EncoderOptions("", encoder.window_frames, encoder.window_groups, encoder.group_size, hidden)

    @cached_property
    def _encoder(self) -> DeviceGraph:
        profile = encoder_profile(self._options, self._config.features)
        return device_encoder(self._config.directory, Path(), self.device, profile, TORCH)


def ask(front: FrontEnd, question: Question, expected: Prompt) -> Asked:
    """Compares our prompt and audio rows with the authors'."""
    ids, theirs = front.prompt(question).tolist(), expected.ids.tolist()
    rows_error = None
    if question.clips:
        rows = front.rows(question)
        close = rows.shape == expected.audio_embeds.shape
        scale = np.abs(expected.audio_embeds).max()
        rows_error = float(np.abs(rows - expected.audio_embeds).max() / scale) if close else float("inf")
    passed = ids == theirs and (rows_error is None or rows_error <= BOUNDS["float32"].hidden)
    return Asked(f"{same(ids, theirs)}/{len(theirs)}", rows_error, passed)


def same(found: Sequence[int], expected: Sequence[int]) -> int:
    """How many ids agree from the beginning on."""
    pairs = zip(found, expected, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
