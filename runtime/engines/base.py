"""What every engine is: sizes, the names of its bindings, and ``run``.

The bindings are those of a TensorRT-LLM engine with paged KV and packed input (facts in
``tests/contracts``). Host arrays and device arrays are told apart by name: ``host_*`` stay on the
host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # sizes are read by processes that need no torch
    import torch

CONTEXT, GENERATION = 0, 1  # values of host_request_types
PERF_KNOBS = 16  # entries of host_runtime_perf_knobs


@dataclass(frozen=True, slots=True)
class EngineShape:
    """Sizes that packer, cache and engine must agree on.

    ``max_batch_size`` counts sequences of a step, ``max_num_tokens`` packed rows of a step and
    ``max_seq_len`` positions of a sequence.
    """

    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    tokens_per_block: int
    num_blocks: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if self.tokens_per_block & (self.tokens_per_block - 1):
            raise ValueError(f"tokens_per_block: {self.tokens_per_block} is not a power of two")

    @property
    def max_blocks_per_seq(self) -> int:
        """Width of a block table."""
        return -(-self.max_seq_len // self.tokens_per_block)

    @property
    def pool_shape(self) -> tuple[int, ...]:
        """[blocks, layers, K or V, KV heads, tokens of a block, head size]."""
        return (self.num_blocks, self.num_layers, 2, self.num_kv_heads, self.tokens_per_block, self.head_dim)


@dataclass(frozen=True, slots=True)
class EngineOutputs:
    """``hidden_states`` [rows, hidden] after the final norm; ``logits`` [sequences, output] float32."""

    hidden_states: torch.Tensor
    logits: torch.Tensor


class Engine(Protocol):
    """One decoder stack with its head and its KV pool."""

    shape: EngineShape

    def pool_address(self) -> int:
        """Address that ``host_kv_cache_pool_pointers`` must carry."""

    def copy_block(self, source: int, target: int) -> None:
        """Queues a copy of one block of the pool, all layers, behind the steps so far."""

    def scrub(self, blocks: Sequence[int]) -> None:
        """Clears blocks of the pool that hold numbers which are not finite.

        What a mask hides is multiplied by zero, and zero times NaN is NaN: the next owner of a block would
        suffer from positions that it has not written yet.
        """

    def run(self, inputs_embeds: torch.Tensor, bindings: Mapping[str, np.ndarray]) -> EngineOutputs:
        """One packed step.

        Args:
            inputs_embeds: [rows, hidden], contexts first, then one row per generating sequence.
            bindings: every other input of the contract, as packed by ``runtime.engines.packer``.

        Returns:
            Outputs that may lie in the engine's own memory: they hold until its next ``run``.
        """
