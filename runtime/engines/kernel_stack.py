"""A Qwen3 decoder over rows that name slots and positions in tensors: nothing in it asks the host.

So one pass of single rows can be captured as a CUDA graph. The operations between the matrices come as
``kernels.ops.Ops``: kernels on a GPU, plain torch elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from kernels.experts import Experts, run_experts
from kernels.fused import FUSED_ROWS
from kernels.linear import Dense, Matrix
from kernels.ops import Ops
from kernels.paged_rows import Pool
from runtime.checkpoint.decoder import DecoderConfig
from runtime.engines.base import EngineShape
from runtime.engines.torch_engine import fuse_layer
from runtime.graphs.device import give_back

MakeMatrix = Callable[[torch.Tensor], Matrix]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of a pass belong.

    ``slots``, ``positions`` [rows] int32; ``tiles`` [tiles, 2] int32 of the first ``contexts`` rows, which
    are prompt chunks (``kernels.paged_rows.attend_chunks``); the others are single rows.
    """

    slots: torch.Tensor
    positions: torch.Tensor
    tiles: torch.Tensor | None = None
    contexts: int = 0


@dataclass(frozen=True, slots=True)
class StackLayer:
    """Norms and matrices of one layer, see ``LayerWeights``; ``experts`` has those of a mixture once more."""

    input_norm: torch.Tensor
    qk_norm: torch.Tensor
    post_norm: torch.Tensor
    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix
    experts: Experts | None = None


def rope_table(config: DecoderConfig, positions: int, like: torch.Tensor) -> torch.Tensor:
    """Cosines and sines [positions, 2, head size], rounded like the rows that they turn, as the authors' code does."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), config.rope_theta**-steps).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()], dim=1).to(like)


class DecoderStack:
    """All layers and the final norm, with the KV pool.

    Args:
        config: sizes of the stack.
        shape: sizes of pool and sequences.
        weights: Hugging Face names to tensors, all on the device that the stack runs on.
        prefix: what stands before ``layers.N``.
        ops: what runs between the matrices.
        matrix: makes a matrix of a weight [out, in].
        spare_blocks: blocks of the pool beyond those that the cache hands out.
        fused: few rows take ``kernels.fused`` in place of a library's matrices.
    """

    def __init__(
        self,
        config: DecoderConfig,
        shape: EngineShape,
        weights: Mapping[str, torch.Tensor],
        prefix: str,
        ops: Ops,
        matrix: MakeMatrix = Dense,
        spare_blocks: int = 0,
        fused: bool = False,
    ) -> None:
        self.config, self.shape, self._ops, self._fused = config, shape, ops, fused
        self._norm = weights[f"{prefix}norm.weight"]
        self.layers = [self._layer(weights, prefix, i, matrix) for i in range(config.num_layers)]
        give_back(self._norm.device)  # the parts of joined matrices: each too small for the next whole one
        blocks, *rest = shape.pool_shape
        self.memory = torch.zeros(blocks + spare_blocks, *rest, dtype=self._norm.dtype, device=self._norm.device)
        self._rope = rope_table(config, shape.max_seq_len, self._norm)

    def _layer(self, weights: Mapping[str, torch.Tensor], prefix: str, number: int, matrix: MakeMatrix) -> StackLayer:
        sizes = self.config.experts_of(number)
        fused = fuse_layer(weights, f"{prefix}layers.{number}.", self.config, sizes)
        qkv, out, gate_up, down = (matrix(w) for w in (fused.qkv, fused.out, fused.gate_up, fused.down))
        experts = None
        if sizes is not None:
            assert fused.router is not None
            experts = Experts(fused.router, gate_up, down, sizes.taken, sizes.normalised)
            give_back(self._norm.device)  # parts of one layer's experts are as large as they are together
        return StackLayer(fused.input_norm, fused.qk_norm, fused.post_norm, qkv, out, gate_up, down, experts)

    def copy_block(self, source: int, target: int) -> None:
        """Copies one block of the pool, all layers, in the order of the caller's stream."""
        self.memory[target].copy_(self.memory[source])

    def __call__(self, x: torch.Tensor, rows: Rows, tables: torch.Tensor, store_only: bool = False) -> torch.Tensor:
        """One pass.

        Args:
            x: [rows, hidden].
            tables: [slots, 2, blocks of a sequence] int32.
            store_only: makes keys and values of all layers and no result.

        Returns:
            Rows after the final norm [rows, hidden]; with ``store_only`` something of no meaning.
        """
        ops, eps, pool = self._ops, self.config.rms_norm_eps, Pool(self.memory, tables)
        heads = self.config.num_heads + 2 * self.config.num_kv_heads
        if self._fused and len(x) <= FUSED_ROWS and not store_only:
            return self._few_rows(x, rows, pool, heads)
        normed = ops.rms_norm(x, self.layers[0].input_norm, eps)
        for number, layer in enumerate(self.layers):
            mixed = layer.qkv(normed).view(len(x), heads, self.config.head_dim)
            last = number + 1 == len(self.layers)
            q = ops.rotate_and_store(mixed, layer.qk_norm, self._rope, pool, rows.slots, rows.positions, number, eps)
            if last and store_only:
                break
            x, normed = ops.add_rms_norm(x, layer.out(self._attend(q, pool, rows, number)), layer.post_norm, eps)
            grown = self._grow(layer, normed)
            following = self._norm if last else self.layers[number + 1].input_norm
            x, normed = ops.add_rms_norm(x, grown, following, eps)
        return normed

    def _grow(self, layer: StackLayer, normed: torch.Tensor) -> torch.Tensor:
        """What the layer's MLP or experts add to the rows."""
        if layer.experts is None:
            return layer.down(self._ops.swiglu(layer.gate_up(normed)))
        return run_experts(self._ops, normed, layer.experts)

    def _few_rows(self, x: torch.Tensor, rows: Rows, pool: Pool, heads: int) -> torch.Tensor:
        """The same with everything next to a matrix in the matrix's launch."""
        ops, eps = self._ops, self.config.rms_norm_eps
        for number, layer in enumerate(self.layers):
            mixed = ops.fused_linear(x, layer.qkv, layer.input_norm, eps).view(len(x), heads, self.config.head_dim)
            q = ops.rotate_and_store(mixed, layer.qk_norm, self._rope, pool, rows.slots, rows.positions, number, eps)
            x = ops.fused_linear(self._attend(q, pool, rows, number), layer.out, residual=x)
            if layer.experts is None:
                active = ops.fused_linear(x, layer.gate_up, layer.post_norm, eps, gated=True)
                x = ops.fused_linear(active, layer.down, residual=x)
            else:
                x = x + run_experts(ops, ops.rms_norm(x, layer.post_norm, eps), layer.experts)
        return ops.rms_norm(x, self._norm, eps)

    def _attend(self, q: torch.Tensor, pool: Pool, rows: Rows, layer: int) -> torch.Tensor:
        """[rows, heads * head size]; contexts come first."""
        n, parts = rows.contexts, []
        if rows.tiles is not None and n:
            parts.append(self._ops.attend_chunks(q[:n], pool, rows.slots[:n], rows.positions[:n], rows.tiles, layer))
        if n < len(q):
            parts.append(self._ops.attend_rows(q[n:], pool, rows.slots[n:], rows.positions[n:], layer))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
