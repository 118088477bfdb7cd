"""Fun-Audio-Chat as the server sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.engines.options import EngineOptions
from runtime.errors import InvalidRequest
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import FRAME_S, ModelConfig, cache_specs
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS, PromptBuilder, shared_length
from runtime.frames.loop import FrameLoop
from runtime.frontend.mel import position_hz
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.params import AnswerParams
from runtime.requests.messages import Message
from runtime.scheduling.stream import Prompt


class FunAudioChat:
    """Implements ``runtime.families.base.Family``."""

    frame_s = FRAME_S
    system_prompts = SYSTEM_PROMPTS

    def __init__(self, config: ModelConfig, tokenizer: ChatTokenizer) -> None:
        self.config, self.tokenizer, self.features = config, tokenizer, config.features
        self.caches, self.position_hz = cache_specs(config), position_hz(config.speech_ids.group_size)
        self._prompts = PromptBuilder(config, tokenizer)

    def prompt(self, messages: Sequence[Message], clips: Sequence[int]) -> Prompt:
        """Ids, and zeros [placeholders, hidden] float32 for the rows of the clips."""
        ids = self._prompts.build(messages, clips)
        positions = np.flatnonzero(ids == self.config.text_ids.audio)
        rows = np.zeros((len(positions), self.config.backbone.hidden_size), np.float32)
        return Prompt(ids, rows, positions, shared_length(messages, ids, self.config.text_ids.stop))

    def answer(self, params: AnswerParams) -> Answer:
        """The rules of one answer.

        Raises:
            InvalidRequest: a banned id is not in the vocabulary.
        """
        vocabulary = self.config.backbone.output_size
        wrong = [id_ for pair in params.sampling.banned_pairs for id_ in pair if id_ >= vocabulary]
        if wrong:
            raise InvalidRequest("banned_pairs", f"names id {wrong[0]}", f"use text ids below {vocabulary}")
        return Answer(self.config.text_ids, self.config.speech_ids, params)

    def loop(self, options: EngineOptions, engines: Path | None) -> FrameLoop:
        """A loop in torch, on recorded kernels or on compiled engines, as the options say."""
        from runtime.families.fun_audio_chat.build import build_loop  # late: it needs torch

        return build_loop(self.config, options, engines)


def open_checkpoint(directory: Path) -> FunAudioChat:
    """Reads the configuration and the tokenizer of a checkpoint.

    Raises:
        BuildError: a file is missing or does not fit.
    """
    return FunAudioChat(ModelConfig.read(directory), ChatTokenizer(directory))
