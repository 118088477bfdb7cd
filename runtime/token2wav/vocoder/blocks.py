"""What the HiFT decoder is made of: activations, residual blocks, causal convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from kernels.token2wav import snake


class Snake(nn.Module):
    """x + sin^2(a x) / a with one a per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        #: Replaced by a kernel on a GPU.
        self.snake: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = snake

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, channels, time]."""
        return self.snake(x, self.alpha)


class ResBlock(nn.Module):
    """Residual pairs of causal convolutions, the first of each dilated."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, channels, time]."""
        for conv1, conv2, act1, act2 in zip(
            self.convs1, self.convs2, self.activations1, self.activations2, strict=True
        ):
            x = x + causal(conv2, act2(causal(conv1, act1(x))))
        return x


def causal(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(conv, nn.Conv1d)
    return conv(F.pad(x, ((conv.kernel_size[0] - 1) * conv.dilation[0], 0)))
