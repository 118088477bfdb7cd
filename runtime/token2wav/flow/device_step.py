"""One guided Euler step for a device: the numbers of ``flow.EulerStep`` in few launches, over paged caches.

What stands between two matrices of the net is one operation, see ``kernels.flow``: nine launches a block.
What all steps of a call share is prepared once. Nothing here depends on data, so it can be recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from kernels.flow import GUIDANCE_ROWS, FlowPages
from kernels.ops import Ops
from runtime.token2wav.flow.dit import BLOCK_PARTS, FINAL_PARTS, NORM_EPS, Block
from runtime.token2wav.flow.net import EulerStep
from runtime.token2wav.flow.past import rotary


@dataclass(frozen=True, slots=True)
class FlowCall:
    """What all steps of a call share.

    ``mu`` and ``cond`` [2 * streams, bins, T] and ``speaker`` [2 * streams, bins], with conditioning
    first; ``kept`` [2 * streams] see ``Past``; ``rope`` [2, streams, T, head dim].
    """

    mu: torch.Tensor
    speaker: torch.Tensor
    cond: torch.Tensor
    kept: torch.Tensor
    rope: torch.Tensor
    pages: FlowPages


class DeviceBlock(nn.Module):
    """The matrices of a block of the net; queries, keys and values are one."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.qkv = _joined([_linear(block.attn[name]) for name in ("to_q", "to_k", "to_v")])
        self.out = _linear(block.attn["to_out"][0])  # type: ignore[index]
        up, down = block.ff["ff"][0], block.ff["ff"][2]  # type: ignore[index]
        self.up, self.down = _linear(up[0]), _linear(down)  # type: ignore[index]

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of the matrices' type to such rows; GELU computes in float32 inside."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class DeviceStep(nn.Module):
    """Takes the weights out of ``step``, which is of no use afterwards: they are held once.

    Args:
        step: on the CPU, its tables of modulations made.
        ops: of the device that this one is moved to.
    """

    parts: torch.Tensor
    widths: torch.Tensor

    def __init__(self, step: EulerStep, ops: Ops) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DeviceBlock(block) for block in step.estimator.blocks())
        self.estimator = step.estimator
        self.estimator.transformer_blocks = nn.ModuleList()
        self.guidance, self._ops = step.guidance, ops
        self.register_buffer("parts", step.parts)
        self.register_buffer("widths", step.widths)

    def begin(self, mu: torch.Tensor, speaker: torch.Tensor, kept: torch.Tensor, pages: FlowPages) -> FlowCall:
        """The call of mu [streams, bins, T], speaker [streams, bins] and kept [streams]."""
        own = pages.first[:, None] + torch.arange(mu.shape[2], device=mu.device)
        silent = torch.zeros_like(mu)
        return FlowCall(
            mu=torch.cat([mu, silent]),
            speaker=torch.cat([speaker, torch.zeros_like(speaker)]),
            cond=torch.cat([silent] * GUIDANCE_ROWS),
            kept=torch.cat([kept] * GUIDANCE_ROWS),
            rope=rotary(own, self.estimator.rotary_embed.inv_freq),  # type: ignore[arg-type]
            pages=pages,
        )

    def forward(
        self, x: torch.Tensor, step: int, tails: torch.Tensor, caches: torch.Tensor, call: FlowCall
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next x, and what later calls need of these frames.

        Args:
            x: [streams, bins, T] float32; T is a whole number of blocks.
            step: 0 to 9.
            tails: [streams, 2, 2, dim, 30] of guidance row and convolution.
            caches: [depth, blocks, 2, 2, heads, block frames, head dim].

        Returns:
            x; keys and values in blocks [depth, streams * own blocks, 2, 2, heads, block frames, head dim]; tails.
        """
        streams, paired = x.shape[0], torch.cat([x] * GUIDANCE_ROWS)
        earlier = tails.transpose(0, 1).flatten(0, 1)
        h, next_tails = self.estimator.embed(paired, call.mu, call.speaker, call.cond, earlier, call.kept)
        own_blocks = streams * (x.shape[2] // caches.shape[5])
        own = torch.empty(len(caches), own_blocks, *caches.shape[2:], dtype=caches.dtype, device=caches.device)
        normed = self._through_blocks(h.flatten(0, 1), self.parts[step], caches, own, call)
        velocity = self.estimator.proj_out(normed).unflatten(0, h.shape[:2]).transpose(1, 2)
        moved = self._ops.guided_step(x, velocity, self.widths[step : step + 1], self.guidance)
        return moved, own, next_tails.unflatten(0, (GUIDANCE_ROWS, streams)).transpose(0, 1)

    def _through_blocks(
        self, x: torch.Tensor, parts: torch.Tensor, caches: torch.Tensor, own: torch.Tensor, call: FlowCall
    ) -> torch.Tensor:
        """Rows [rows * T, dim] through all blocks and the last norm; fills ``own``."""
        ops, delta, gate = self._ops, None, None  # what the residual still lacks
        for i, block in enumerate(self.blocks):
            assert isinstance(block, DeviceBlock)
            shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts[BLOCK_PARTS * i : BLOCK_PARTS * (i + 1)].unbind(
                0
            )
            x, normed = ops.modulated_norm(x, delta, gate, scale_a, shift_a, NORM_EPS, caches.dtype)
            q = ops.pack_heads(block.qkv(normed), call.rope, own[i])
            delta = block.out(ops.attend_blocks(q, caches[i], own[i], call.pages))
            x, normed = ops.modulated_norm(x, delta, gate_a, scale_f, shift_f, NORM_EPS, caches.dtype)
            delta, gate = block.feed_forward(normed), gate_f
        scale, shift = parts[-FINAL_PARTS:].unbind(0)
        return ops.modulated_norm(x, delta, gate, scale, shift, NORM_EPS, torch.float32)[1]


def _linear(module: object) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _joined(linears: Sequence[nn.Linear]) -> nn.Linear:
    """Several matrices of the same input as one."""
    with torch.device("meta"):
        joined = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears))
    joined.weight = nn.Parameter(torch.cat([linear.weight.detach() for linear in linears]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([linear.bias.detach() for linear in linears]), requires_grad=False)
    return joined
