"""How many positions a prompt has, computed here from the checkpoint that the server serves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS, PromptBuilder
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.requests.messages import Message, parse_messages, single_turn

MODE = "s2t"


class PromptOracle:
    """Prompts of text only.

    Control ids are counted here and not by the builder: it is the builder that is under test.
    """

    def __init__(self, out: Path) -> None:
        options = Options.read(out)
        self._directory = options.path(options.model)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """Of the checkpoint."""
        return ChatTokenizer(self._directory)

    @cached_property
    def _builder(self) -> PromptBuilder:
        return PromptBuilder(ModelConfig.read(self._directory), self.tokenizer)

    @staticmethod
    def single(text: str, system: str | None) -> list[Message]:
        """The conversation of a request with ``text`` and perhaps ``system``."""
        return single_turn(SYSTEM_PROMPTS[MODE] if system is None else system, text, 0)

    @staticmethod
    def parsed(document: str) -> list[Message]:
        """The conversation of a request with ``messages``."""
        return parse_messages(document, 0)

    def ids(self, messages: Sequence[Message]) -> np.ndarray:
        """Prompt ids. # [positions]"""
        return self._builder.build(messages, ())

    def positions(self, messages: Sequence[Message]) -> int:
        """Length of the prompt."""
        return len(self.ids(messages))
