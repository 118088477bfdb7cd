"""Random requests as an application sends them: every mode, voice, kind of input; some of them again and again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.perf.clips import LENGTHS_S, made_question
from client.protocol.tensors import FUN_AUDIO_CHAT
from client.request import DEFAULT_RATE, make_request

ALL_OUTPUTS = frozenset(spec.name for spec in FUN_AUDIO_CHAT.outputs)
SUBSETS = (ALL_OUTPUTS, frozenset({"text", "audio", "finish_reason"}), frozenset({"text", "finish_reason"}))
WORDS = ("river", "tell", "me", "why", "sea", "你好", "Straße", "город", "🎧", "مرحبا", "1984", "\n", "…", "e\u0301")
RATES = (8_000, 16_000, 24_000, 44_100, 48_000)
SHORT, LONG = (1, 48), (80, 400)  # max_tokens of answers that are heard to the end, and of those that are cancelled
PINNED = 12


@dataclass(frozen=True, slots=True)
class Job:
    """One request. ``pinned``: its number among the requests whose ids are known; None for the others."""

    payload: bytes
    outputs: frozenset[str]
    max_tokens: int
    pinned: int | None = None


class Traffic:
    """Draws requests.

    Args:
        seed: of everything random here.
        voices: that the server has.
    """

    def __init__(self, seed: int, voices: Sequence[str]) -> None:
        self._draw, self._voices = random.Random(seed), tuple(voices)
        self._clips = [made_question(seconds) for seconds in LENGTHS_S]
        self.pinned: list[Job] = []

    def pin(self, count: int = PINNED) -> None:
        """Chooses the requests that are sent again and again, to see whether their answers stay the same."""
        self.pinned = [self._request(SHORT, ALL_OUTPUTS, seed) for seed in range(count)]

    def short(self) -> Job:
        """A request whose answer is soon complete; a third of them are pinned ones."""
        if self._draw.random() < 1 / 3:
            return self._draw.choice(self.pinned)
        return self._request(SHORT, self._draw.choice(SUBSETS))

    def long(self) -> Job:
        """A request whose answer is not soon complete, for clients that leave."""
        return self._request(LONG, self._draw.choice(SUBSETS))

    def heavy(self) -> Job:
        """A request that takes much at once."""
        return self._draw.choice((self.wordy, self.spoken))()

    def wordy(self) -> Job:
        """A long prompt: its prefill takes several steps."""
        return self._made({"text": "word " * self._draw.randint(200, 700)}, self._draw.randint(*LONG), ALL_OUTPUTS)

    def spoken(self) -> Job:
        """A spoken answer that is not soon complete."""
        options = {"audio": self._clip(), "mode": "s2s", "earliest": True, "temperature": 10.0, "top_p": 1.0}
        return self._made(options, self._draw.randint(*LONG), ALL_OUTPUTS)

    def ending(self, tokens: int) -> Job:
        """A spoken answer of so many tokens, unless it stops by itself before."""
        return self._made({"text": self._words(), "mode": "s2s", "earliest": True}, tokens, ALL_OUTPUTS)

    def _request(self, lengths: tuple[int, int], outputs: frozenset[str], pinned: int | None = None) -> Job:
        draw = self._draw
        options = self._question() | {
            "mode": draw.choice(("s2s", "s2s", "s2s", "s2t")),
            "voice": draw.choice((None, *self._voices)),
            "greedy": draw.choice((None, True)),
            "text_greedy": draw.choice((None, False)),
            "temperature": draw.choice((None, 0.5, 1.5, 10.0)),
            "top_k": draw.choice((None, 20)),
            "earliest": draw.choice((None, None, True)),
        }
        return self._made(options, draw.randint(*lengths), outputs, pinned)

    def _made(
        self, options: dict[str, Any], max_tokens: int, outputs: frozenset[str], pinned: int | None = None
    ) -> Job:
        named = {name: options.pop(name, None) for name in ("audio", "text", "messages")}
        rate = options.pop("sample_rate", DEFAULT_RATE)
        options |= {"max_tokens": max_tokens, "seed": self._draw.getrandbits(60)}
        request = make_request(named["audio"], rate, named["text"], named["messages"], sorted(outputs), options)
        return Job(request.SerializeToString(), outputs, max_tokens, pinned)

    def _question(self) -> dict[str, Any]:
        kind = self._draw.choice(("audio", "audio", "text", "both", "history", "rate"))
        if kind == "history":
            return self._history()
        question: dict[str, Any] = {}
        if kind in ("audio", "both", "rate"):
            question["audio"] = self._clip()
        if kind in ("text", "both"):
            question["text"] = self._words()
        if kind == "rate":
            question["sample_rate"] = self._draw.choice(RATES)
        return question

    def _history(self) -> dict[str, Any]:
        clips, turns = [], [{"role": "system", "content": self._words()}]
        for number in range(self._draw.randint(1, 5)):
            spoken = self._draw.random() < 0.5
            if spoken:
                clips.append(self._clip())
            parts = [{"type": "audio"}] if spoken else [{"type": "text", "text": self._words()}]
            turns.append({"role": "user", "content": parts})
            turns.append({"role": "assistant", "content": f"{number}: {self._words()}"})
        question = {"messages": json.dumps(turns[:-1])}
        return question | ({"audio": clips} if clips else {})

    def _clip(self) -> np.ndarray:
        whole = self._draw.choice(self._clips)
        return whole[: self._draw.randint(len(whole) // 2, len(whole))]

    def _words(self) -> str:
        return " ".join(self._draw.choices(WORDS, k=self._draw.randint(1, 20)))
