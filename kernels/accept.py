"""The rules of an answer for the ids that a frame chose, in tensors by slot. Plain torch twin.

They are those of ``runtime.families.fun_audio_chat.answer.Answer.accept``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Rules:
    """Ids with a meaning of their own; ``not_finite`` stands for the text id of a faulty slot."""

    audio_bos: int
    audio_eos: int
    speech_eos: int
    not_finite: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What the rules read and write, by slot; the last slot is for padding, its position stays 0.

    ``chosen`` text ids and ``codes`` [slots, group] of the frame, ``text_id`` the text id in force, ``position``,
    ``forwards``: int64 [slots] each. ``forced``, ``speaks``, ``speaking``, ``feeding``: bool [slots]; ``faulty`` too,
    set by the choices of a frame (``kernels.choice``) and cleared here.
    ``text_seen``, ``code_seen`` [slots, ids] uint8: what the penalty sees.
    """

    chosen: torch.Tensor
    codes: torch.Tensor
    text_id: torch.Tensor
    position: torch.Tensor
    forwards: torch.Tensor
    forced: torch.Tensor
    speaks: torch.Tensor
    speaking: torch.Tensor
    feeding: torch.Tensor
    faulty: torch.Tensor
    text_seen: torch.Tensor
    code_seen: torch.Tensor


def accept(state: Answers, rules: Rules, slots: torch.Tensor, found: torch.Tensor) -> None:
    """Moves some slots on by one frame.

    Args:
        slots: [rows] int32.
        found: [rows, 1 + group] int64, becomes text id and codes as they were chosen.
    """
    at = slots.long()
    text, codes = state.chosen[at], state.codes[at]
    found[:, 0] = torch.where(state.faulty[at], rules.not_finite, text)
    found[:, 1:] = codes
    text = torch.where((state.forwards[at] == 0) & state.forced[at], rules.audio_bos, text)
    speaks = state.speaks[at]
    emitted = state.speaking[at] & speaks
    ended = emitted & (codes == rules.speech_eos).any(dim=1)
    text = torch.where(ended, rules.audio_eos, text)
    said = torch.where(ended[:, None], rules.speech_eos, codes)
    flat, places = state.code_seen.view(-1), at[:, None] * state.code_seen.shape[1] + said
    flat.index_copy_(0, places.flatten(), torch.maximum(flat[places], emitted[:, None].byte()).flatten())
    state.text_seen.view(-1).index_fill_(0, at * state.text_seen.shape[1] + text, 1)
    state.speaking.index_copy_(0, at, speaks & ((emitted & ~ended) | (text == rules.audio_bos)))
    state.feeding.index_copy_(0, at, emitted & ~ended)
    state.text_id.index_copy_(0, at, text)
    state.faulty.index_fill_(0, at, False)
    state.forwards.index_copy_(0, at, state.forwards[at] + 1)
    state.position.index_copy_(0, at, state.position[at] + 1)
    state.position[-1:].zero_()  # padding rows never get anywhere
