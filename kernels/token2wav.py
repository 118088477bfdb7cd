"""Element-wise parts of flow and vocoder: plain torch twins of the kernels."""

from __future__ import annotations

import torch

SNAKE_EPS = 1e-9


def guided_step(x: torch.Tensor, velocity: torch.Tensor, width: torch.Tensor, guidance: float) -> torch.Tensor:
    """One Euler step along the guided velocity.

    Args:
        x: [streams, bins, frames] float32.
        velocity: [2 * streams, bins, frames], with conditioning first.
        width: [1] float32 of the step.
        guidance: how far to go beyond the velocity with conditioning.

    Returns:
        The next x.
    """
    guided, free = velocity.unflatten(0, (2, x.shape[0])).unbind(0)
    return x + width * ((1 + guidance) * guided - guidance * free)


def snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """x + sin^2(alpha x) / alpha, x [rows, channels, time], alpha [channels]."""
    a = alpha[None, :, None]
    return x + torch.sin(a * x).square() / (a + SNAKE_EPS)
