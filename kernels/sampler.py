"""The arithmetic of choosing ids from scores, in plain torch: random numbers, processed distributions, draws.

The order is that of the authors' generate() (transformers 4.52): repetition penalty, banned
ids, temperature, top-k, top-p, softmax, one draw. A draw is the inverse of the cumulative
distribution in id order, in float64.
"""

from __future__ import annotations

import numpy as np
import torch

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_WORD = np.uint64(0xFFFFFFFF)
_WORDS = 4  # numbers of one Philox block


def philox_uniforms(seeds: np.ndarray, steps: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on nothing but (seed, step, position).

    Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), a counter
    generator, so that the same numbers can be made on any device in any order.

    Args:
        seeds: [streams] int64.
        steps: [streams] int64.
        count: numbers per stream.

    Returns:
        [streams, count] float64 with 32 random bits each.
    """
    blocks = -(-count // _WORDS)
    shape = (len(seeds), blocks)
    step = np.broadcast_to(steps.astype(np.uint64)[:, None], shape)
    words = [
        np.broadcast_to(np.arange(blocks, dtype=np.uint64), shape),
        step & _WORD,
        step >> np.uint64(32),
        np.zeros(shape, np.uint64),
    ]
    seed = seeds.astype(np.uint64)
    keys = [(seed & _WORD).astype(np.uint32)[:, None], (seed >> np.uint64(32)).astype(np.uint32)[:, None]]
    for _ in range(_ROUNDS):
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (second >> np.uint64(32)) ^ words[1] ^ keys[0],
            second & _WORD,
            (first >> np.uint64(32)) ^ words[3] ^ keys[1],
            first & _WORD,
        ]
        keys = [keys[0] + _KEY_STEPS[0], keys[1] + _KEY_STEPS[1]]
    flat = np.stack(words, axis=-1).reshape(len(seeds), blocks * _WORDS)
    return flat[:, :count].astype(np.float64) / 2.0**32


def probabilities(
    scores: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Processed distribution of penalised scores.

    Args:
        scores: [rows, ids] float32.
        temperature: [rows, 1] float32. top_k: [rows, 1] int64, 0 = all. top_p: [rows, 1] float32.

    Returns:
        [rows, ids] float32, each row summing to 1.
    """
    scores = scores / temperature
    ordered, order = scores.sort(dim=-1)
    ids = scores.shape[-1]
    kept = torch.where(top_k > 0, top_k, ids).clamp(max=ids)
    kth = ordered.gather(-1, ids - kept)
    ordered = ordered.masked_fill(ordered < kth, -torch.inf)
    below = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    below[:, -1] = False  # at least one id stays
    removed = torch.zeros_like(below).scatter(-1, order, below | ordered.isneginf())
    return scores.masked_fill(removed, -torch.inf).softmax(dim=-1)


def draw(distribution: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Inverse CDF in id order.

    Args:
        distribution: [rows, ids] float32. uniforms: [rows] float64 in [0, 1).

    Returns:
        [rows] int64.
    """
    cumulative = distribution.double().cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    return (cumulative <= uniforms[:, None]).sum(dim=-1)
