"""What the device knows of every stream, by slot: the answer's rules, ids, positions, parameters.

The last slot is for padding. Rows that only fill a batch up to its bucket work there, on a block of
their own. ``answers`` is what ``kernels.accept`` moves on frame by frame; the host repeats its rules with the
ids that come back one frame later, so both always know the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kernels.accept import Answers, Rules
from kernels.choice import Choices, Draws
from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.frames.loop import NOT_FINITE
from runtime.graphs.device import to_device
from runtime.params import MAX_BANNED_PAIRS
from runtime.scheduling.stream import Stream

NO_PAIR = -1


@dataclass(frozen=True, slots=True)
class StateSizes:
    """``slots`` of streams, without the one for padding; width and type of hidden rows; both vocabularies' rules."""

    slots: int
    hidden: int
    vocabulary: int
    text_ids: TextIds
    speech_ids: SpeechIds


def _choices(
    slots: int, ids: int, device: torch.device, shared: dict[str, torch.Tensor], draws: Draws | None
) -> Choices:
    def full(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((slots,), value, dtype=dtype, device=device)

    return Choices(
        seen=torch.zeros(slots, ids, dtype=torch.uint8, device=device),
        greedy=full(1, torch.bool),
        penalty=full(1.0, torch.float32),
        temperature=full(1.0, torch.float32),
        top_k=full(0, torch.int32),
        top_p=full(1.0, torch.float32),
        draws=draws,
        **shared,
    )


class SlotState:
    """Tensors by slot, whose addresses never change.

    Args:
        sizes: see ``StateSizes``.
        like: a tensor of the model's type on its device.
        draws: replaces the seeded random numbers (tests).
    """

    def __init__(self, sizes: StateSizes, like: torch.Tensor, draws: Draws | None = None) -> None:
        self.sizes, self.padding = sizes, sizes.slots
        slots, group, device = sizes.slots + 1, sizes.speech_ids.group_size, like.device

        def longs(*shape: int) -> torch.Tensor:
            return torch.zeros(slots, *shape, dtype=torch.int64, device=device)

        def flags() -> torch.Tensor:
            return torch.zeros(slots, dtype=torch.bool, device=device)

        self.text_id, self.position, self.forwards, self.chosen = longs(), longs(), longs(), longs()
        self.codes = longs(group)
        self.forced, self.speaks, self.speaking, self.feeding = flags(), flags(), flags(), flags()
        self.faulty = flags()  # an engine gave this slot's present frame scores that are not finite
        self.hidden = torch.zeros(slots, sizes.hidden, dtype=like.dtype, device=device)
        seeds, pairs = longs(), torch.full((slots, MAX_BANNED_PAIRS, 2), NO_PAIR, device=device)
        shared = {"seeds": seeds, "steps": self.forwards, "last": self.text_id, "faulty": self.faulty}
        self.text = _choices(slots, sizes.vocabulary, device, shared | {"bans": pairs}, draws)
        shared["bans"] = pairs[:, :0]  # codes have no banned pairs
        self.speech = _choices(slots, sizes.speech_ids.codebook_size, device, shared, draws)
        self.rules = Rules(sizes.text_ids.audio_bos, sizes.text_ids.audio_eos, sizes.speech_ids.eos, NOT_FINITE)
        self.answers = Answers(
            chosen=self.chosen, codes=self.codes, text_id=self.text_id, position=self.position,
            forwards=self.forwards, forced=self.forced, speaks=self.speaks, speaking=self.speaking,
            feeding=self.feeding, faulty=self.faulty, text_seen=self.text.seen, code_seen=self.speech.seen,
        )  # fmt: skip

    def admit(self, stream: Stream) -> None:
        """Begins a stream in its slot: it stands before the last position of its prompt."""
        slot, params, ids = stream.slot, stream.params, self.sizes.speech_ids
        fill(self.text_id, slot, int(stream.prompt.ids[-1]))
        fill(self.position, slot, len(stream.prompt) - 1)
        fill(self.forwards, slot, 0)
        fill(self.codes, slot, ids.bos)
        fill(self.forced, slot, params.force_audio_start)
        fill(self.speaks, slot, params.speaks)
        for flag in (self.speaking, self.feeding, self.faulty):
            fill(flag, slot, False)
        self._parameters(stream)
        for choices in (self.speech, self.text):
            fill(choices.seen, slot, 0)
        if not params.sampling.text_greedy:
            self.text.seen[slot].index_fill_(0, to_device(stream.prompt.ids.astype(np.int64), self.text_id.device), 1)

    def _parameters(self, stream: Stream) -> None:
        slot, sampling = stream.slot, stream.params.sampling
        for choices, raw in ((self.speech, False), (self.text, sampling.text_greedy)):
            # The raw argmax of the text head knows neither penalty nor bans.
            fill(choices.greedy, slot, raw or sampling.greedy)
            fill(choices.penalty, slot, 1.0 if raw else sampling.repetition_penalty)
            fill(choices.temperature, slot, sampling.temperature)
            fill(choices.top_p, slot, sampling.top_p)
            fill(choices.top_k, slot, sampling.top_k)
        fill(self.text.seeds, slot, sampling.seed)
        fill(self.text.bans, slot, NO_PAIR)
        if not sampling.text_greedy and sampling.banned_pairs:
            pairs = np.array(sampling.banned_pairs, np.int64)
            self.text.bans[slot, : len(pairs)] = to_device(pairs, self.text.bans.device)


def fill(values: torch.Tensor, slot: int, value: float) -> None:
    """``values[slot] = value`` without waiting for the device: with one axis that would copy from pageable memory."""
    values[slot].fill_(value)
