"""The rules of an answer, one program a row. Twin: ``kernels.accept``.

Padding rows share a slot and race there; whatever they leave behind are valid ids.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.accept import Answers, Rules

WARPS = 1  # a row is a handful of numbers


@triton.jit
def _accept(
    slots,
    found,
    chosen,
    codes,
    text_id,
    position,
    forwards,
    forced,
    speaks,
    speaking,
    feeding,
    faulty,
    text_seen,
    code_seen,
    PADDING: tl.constexpr,
    TEXTS: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    AUDIO_BOS: tl.constexpr,
    AUDIO_EOS: tl.constexpr,
    SPEECH_EOS: tl.constexpr,
    NOT_FINITE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    member = tl.arange(0, GROUP_PAD)
    inside = member < GROUP
    text = tl.load(chosen + slot)
    group = tl.load(codes + slot * GROUP + member, mask=inside, other=0)
    line = found + row * (1 + GROUP)
    tl.store(line, tl.where(tl.load(faulty + slot) != 0, NOT_FINITE, text))
    tl.store(line + 1 + member, group, mask=inside)

    frames = tl.load(forwards + slot)
    text = tl.where((frames == 0) & (tl.load(forced + slot) != 0), AUDIO_BOS, text)
    has_speech = tl.load(speaks + slot) != 0
    emitted = (tl.load(speaking + slot) != 0) & has_speech
    ended = emitted & (tl.max((inside & (group == SPEECH_EOS)).to(tl.int32), 0) != 0)
    goes_on = emitted & (ended == 0)
    text = tl.where(ended, AUDIO_EOS, text)
    said = tl.where(ended, SPEECH_EOS, group)
    tl.store(code_seen + slot * CODES + said, 1, mask=inside & emitted)
    tl.store(text_seen + slot * TEXTS + text, 1)
    tl.store(speaking + slot, has_speech & (goes_on | (text == AUDIO_BOS)))
    tl.store(feeding + slot, goes_on)
    tl.store(text_id + slot, text)
    tl.store(faulty + slot, False)
    tl.store(forwards + slot, frames + 1)
    tl.store(position + slot, tl.where(slot == PADDING, 0, tl.load(position + slot) + 1))


def accept(state: Answers, rules: Rules, slots: torch.Tensor, found: torch.Tensor) -> None:
    """See the twin. ``found`` must be dense."""
    group = state.codes.shape[1]
    _accept[(len(slots),)](
        slots, found, state.chosen, state.codes, state.text_id, state.position, state.forwards,
        state.forced, state.speaks, state.speaking, state.feeding, state.faulty, state.text_seen, state.code_seen,
        PADDING=len(state.position) - 1, TEXTS=state.text_seen.shape[1], CODES=state.code_seen.shape[1],
        GROUP=group, GROUP_PAD=triton.next_power_of_2(group), AUDIO_BOS=rules.audio_bos, AUDIO_EOS=rules.audio_eos,
        SPEECH_EOS=rules.speech_eos, NOT_FINITE=rules.not_finite, num_warps=WARPS,
    )  # fmt: skip
