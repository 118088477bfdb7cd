"""What a call of the velocity net knows of earlier frames, and which of them each frame may see.

The frames of a call begin at a block boundary of their stream. Everything before it comes from
caches: keys and values of whole blocks, and the last inputs of the position convolutions. Written for
export: arithmetic on shapes and integers only. Source: reference section 2.5; the bound on the left
context is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from runtime.token2wav.layout import NO_BLOCK


@dataclass(frozen=True, slots=True)
class Past:
    """The left side of a call; rows with conditioning come first, then the same streams without.

    ``positions`` [rows, T] absolute frames; ``mask`` [rows, 1, T, K + T] additive, over cached and own
    frames; ``tails`` [rows, 2, dim, 30] earlier inputs of the two position convolutions; ``kept``
    [rows] own frames that lie in complete blocks; ``layers(i)`` gives the cached keys and values of a
    layer [rows, 2, heads, K, head dim].
    """

    positions: torch.Tensor
    mask: torch.Tensor
    tails: torch.Tensor
    kept: torch.Tensor
    layers: Callable[[int], torch.Tensor]


def visible_frames(
    own: torch.Tensor, frames: torch.Tensor, cached: torch.Tensor, block: torch.Tensor, window: torch.Tensor
) -> torch.Tensor:
    """Which frames each frame of a call sees [streams, T, K + T] bool.

    A frame sees the valid frames of its own block and of the ``window`` blocks before it. A block that
    is longer than any stream gives full attention.

    Args:
        own: [streams, T] absolute frames of the call.
        frames: [streams] how many of them are valid.
        cached: [streams, K] block that each cached frame belongs to, ``NO_BLOCK`` where there is none.
        block: [1] frames of a block.
        window: [1] blocks.
    """
    # Engines divide in floating point, some roughly: half a frame more, and the first of a block stays in it.
    blocks = ((own + 0.5) / block).floor().to(own.dtype)
    valid = torch.arange(own.shape[1], device=own.device) < frames[:, None]
    keys = torch.cat([cached, torch.where(valid, blocks, NO_BLOCK)], dim=1)[:, None]
    queries = blocks[:, :, None]
    return (keys >= 0) & (keys <= queries) & (keys >= queries - window)


def additive(visible: torch.Tensor) -> torch.Tensor:
    """Zero where a frame may look and the lowest number elsewhere, for all heads [streams, 1, T, K]."""
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None]


def carry(extended: torch.Tensor, kept: torch.Tensor, width: int) -> torch.Tensor:
    """The ``width`` columns that end with column ``kept`` of the call: the next call's tail.

    Args:
        extended: [rows, dim, width + T], the tail of this call before its own columns.
        kept: [rows].
    """
    columns = kept[:, None] + torch.arange(width, device=kept.device)
    return extended.gather(2, columns[:, None].expand(-1, extended.shape[1], -1))


def rotary(positions: torch.Tensor, inverse_frequencies: torch.Tensor) -> torch.Tensor:
    """Cosines and sines of interleaved pairs [2, rows, T, head dim]."""
    angles = (positions[..., None] * inverse_frequencies).repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])
