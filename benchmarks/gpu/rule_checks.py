"""The rules of an answer by their kernel and by their twin, over slots in every state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch

from kernels.accept import Answers, Rules

ROWS, GROUP = 3, 5


def answers(device: torch.device) -> tuple[Answers, Rules]:
    """Slots that begin to speak, speak, and end, with the padding slot behind them; two ids of either kind."""

    def flags(*values: int) -> torch.Tensor:
        return torch.tensor([*values, 0], dtype=torch.bool, device=device)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.ones(ROWS + 1, *shape, dtype=torch.int64, device=device)

    seen = [torch.zeros(ROWS + 1, 2, dtype=torch.uint8, device=device) for _ in range(2)]
    codes = numbers(GROUP)
    codes[1] = 0
    state = Answers(
        numbers(), codes, numbers(), numbers(), numbers() - 1,
        flags(1, 0, 0), flags(1, 1, 1), flags(0, 1, 1), flags(0, 1, 1), flags(0, 0, 1), *seen,
    )  # fmt: skip
    return state, Rules(audio_bos=0, audio_eos=0, speech_eos=1, not_finite=-1)


def accepted(run: Callable[..., None], device: torch.device) -> torch.Tensor:
    """All that the rules leave behind, in one row."""
    state, rules = answers(device)
    slots = torch.arange(ROWS, dtype=torch.int32, device=device)
    found = torch.zeros(ROWS, 1 + GROUP, dtype=torch.int64, device=device)
    run(state, rules, slots, found)
    left = [getattr(state, field.name)[:-1].flatten().long() for field in fields(state)]
    return torch.cat([found.flatten(), *left])
