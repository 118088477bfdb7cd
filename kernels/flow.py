"""What stands between the matrices of the flow's transformer: plain torch twins of the kernels.

A row is one stream with or without conditioning: rows with it come first, then the same streams without.
Frames lie in blocks, in the caches as in a call. Norms, softmax and residuals are float32; what a matrix
multiplies has the type of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

GUIDANCE_ROWS = 2  # every stream is two rows of the net: with and without conditioning


@dataclass(frozen=True, slots=True)
class FlowPages:
    """Which blocks the frames of a call see: those of their own block and of ``window`` blocks before it.

    ``tables`` [streams, slots] int64 rows of the caches, anything where there is no block; ``numbers``
    [streams, slots] int64 the block of the stream in each slot, negative where there is none; ``first``
    [streams] int64 absolute frame of the call's first, where a block begins; ``frames`` [streams] int64
    how many of the call's frames are valid.
    """

    tables: torch.Tensor
    numbers: torch.Tensor
    first: torch.Tensor
    frames: torch.Tensor
    window: int


def modulated_norm(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual x + gate * delta, and its layer norm times (1 + scale) plus shift.

    Args:
        x: [rows, width] float32.
        delta: [rows, width] of any type; None: the residual is x.
        gate, scale, shift: [width] float32.
        dtype: of the second result.
    """
    if delta is not None and gate is not None:
        x = x + gate * delta.float()
    return x, (F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift).to(dtype)


def pack_heads(mixed: torch.Tensor, rope: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Rotary positions on head 0 (the trained weights have them there only), keys and values into blocks.

    Args:
        mixed: [rows * T, 3 * heads * head size] of queries, keys, values.
        rope: [2, streams, T, head size] float32 cosines and sines of interleaved pairs.
        own: [streams * blocks, 2, 2, heads, block frames, head size], written: guidance row, key or value.

    Returns:
        Queries [rows, T, heads, head size], times head size ** -0.5.
    """
    _, streams, length, dim = rope.shape
    heads, frames = own.shape[3:5]
    q, k, v = mixed.view(GUIDANCE_ROWS * streams, length, 3, heads, dim).unbind(2)
    q, k = (_rotate_first_head(x.float(), rope.repeat(1, GUIDANCE_ROWS, 1, 1)) for x in (q, k))
    new = torch.stack([k.to(v.dtype), v], dim=2)  # [rows, T, 2, heads, head size]
    cut = new.unflatten(1, (-1, frames)).unflatten(0, (GUIDANCE_ROWS, streams))
    own.copy_(cut.permute(1, 2, 0, 4, 5, 3, 6).flatten(0, 1))
    return (q * dim**-0.5).to(v.dtype)


def _rotate_first_head(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    head = x[:, :, 0]
    turned = torch.stack([-head[..., 1::2], head[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([(head * rope[0] + turned * rope[1])[:, :, None], x[:, :, 1:]], dim=2)


def attend_blocks(q: torch.Tensor, cache: torch.Tensor, own: torch.Tensor, pages: FlowPages) -> torch.Tensor:
    """Attention of the frames of a call over cached blocks and their own.

    Whatever lies where a frame may not look changes nothing, were it a NaN. A frame that sees none gives zeros.

    Args:
        q: [rows, T, heads, head size], scaled. T is a whole number of blocks.
        cache: [blocks, 2, 2, heads, block frames, head size] of one layer.
        own: [streams * own blocks, 2, 2, heads, block frames, head size], see ``pack_heads``.

    Returns:
        [rows * T, heads * head size].
    """
    streams, frames = len(pages.first), own.shape[4]
    blocks = len(own) // streams
    mine = torch.arange(len(own), device=q.device).view(streams, blocks)
    found = torch.cat([gather_blocks(cache, pages.tables), gather_blocks(own, mine)], dim=3)
    begin = (pages.first // frames)[:, None]
    places = torch.arange(blocks * frames, device=q.device)
    numbers = torch.where(places < pages.frames[:, None], begin + places // frames, -1)
    numbers = torch.cat([pages.numbers.repeat_interleave(frames, dim=1), numbers], dim=1)
    mixed = []
    for block in range(blocks):
        now = begin + block
        seen = (numbers >= 0) & (numbers <= now) & (numbers >= now - pages.window)
        seen = seen.repeat(GUIDANCE_ROWS, 1)[:, None, None]  # [rows, 1, 1, K]
        keys, values = torch.where(seen[..., None], found, 0).float().unbind(1)
        queries = q[:, block * frames : (block + 1) * frames].transpose(1, 2).float()
        scores = torch.where(seen, queries @ keys.transpose(-1, -2), -torch.inf)
        weights = torch.where(seen.any(dim=-1, keepdim=True), torch.softmax(scores, dim=-1), 0).to(q.dtype)
        mixed.append((weights.float() @ values).to(q.dtype).transpose(1, 2))
    return torch.cat(mixed, dim=1).flatten(2).flatten(0, 1)


def gather_blocks(cache: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Cached keys and values of one layer, in the order of each stream's table.

    Args:
        cache: [blocks, 2, 2, heads, block frames, head dim]: guidance row, then key or value.
        tables: [streams, slots] blocks of the cache.

    Returns:
        [2 * streams, 2, heads, slots * block frames, head dim].
    """
    gathered = cache.index_select(0, tables.flatten()).unflatten(0, tables.shape)
    return gathered.permute(2, 0, 3, 4, 1, 5, 6).flatten(4, 5).flatten(0, 1)
