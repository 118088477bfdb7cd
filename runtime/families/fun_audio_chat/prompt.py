"""A conversation to prompt ids with audio placeholders. Source: reference, sections 2.1 and 2.8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.frontend.mel import placeholders
from runtime.frontend.stand_ins import StandIns
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.requests.messages import Message

AUDIO_TURN = "<|audio_bos|><|AUDIO|><|audio_eos|>"
AUDIO_TURN_TOKENS = 3
SYSTEM_PROMPTS = {
    "s2t": "You are asked to generate text tokens.",
    "s2s": "You are asked to generate both text and speech tokens at the same time.",
}


def render(message: Message, texts: StandIns) -> dict[str, str]:
    """A turn as the chat template takes it; parts are joined by a newline."""
    parts = [AUDIO_TURN if part is None else texts.hide(part) for part in message.parts]
    return {"role": message.role, "content": "\n".join(parts)}


def shared_length(messages: Sequence[Message], ids: np.ndarray, turn_ends: Sequence[int]) -> int:
    """How many first ids are a system message of text only, through the id that ends it; 0 without one.

    Args:
        ids: the prompt [length].
        turn_ends: control ids that end a turn.
    """
    first = messages[0]
    if first.role != "system" or None in first.parts:
        return 0
    ends = np.flatnonzero(np.isin(ids, turn_ends))
    return int(ends[0]) + 1 if len(ends) and ends[0] + 1 < len(ids) else 0


class PromptBuilder:
    """Messages and clip lengths to ids.

    Args:
        config: special ids and the extractor's sizes.
        tokenizer: of the same checkpoint.

    Raises:
        BuildError: they disagree about the id that stands for sound.
    """

    def __init__(self, config: ModelConfig, tokenizer: ChatTokenizer) -> None:
        self._config, self._tokenizer = config, tokenizer
        ids = tokenizer.encode(AUDIO_TURN)
        if len(ids) != AUDIO_TURN_TOKENS or ids[1] != config.text_ids.audio:
            problem = f"gives {ids[:8]} for {AUDIO_TURN}, where config.json has {config.text_ids.audio} for sound"
            raise BuildError("tokenizer", problem, "use config and tokenizer of one checkpoint")

    def build(self, messages: Sequence[Message], clip_samples: Sequence[int]) -> np.ndarray:
        """Prompt ids [length] int64; each clip's placeholder is repeated for its 5 Hz positions."""
        texts = self._tokenizer.stand_ins()
        rendered = self._tokenizer.render([render(message, texts) for message in messages])
        features, group = self._config.features, self._config.speech_ids.group_size
        counts = iter([placeholders(n, features.sample_rate, group) for n in clip_samples])
        ids: list[int] = []
        for id_ in self._tokenizer.encode(rendered, texts):
            ids += [id_] * (next(counts) if id_ == self._config.text_ids.audio else 1)
        return np.asarray(ids, np.int64)
