"""The kernel stack behind the ``Engine`` interface: the contract's bindings in, what every engine gives out.

What ``make parity TARGET=cuda`` compares with the torch engine. The frames of the ``cuda`` target do not
come through here but through ``runtime.frames``, which needs no host arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from kernels.linear import Matrix
from kernels.paged_rows import cut_tiles
from runtime.engines.base import CONTEXT, EngineOutputs
from runtime.engines.kernel_stack import DecoderStack, Rows


class KernelEngine:
    """Implements ``runtime.engines.base.Engine``.

    Args:
        stack: the decoder.
        head: matrices applied one after another to the last row of each sequence.
    """

    def __init__(self, stack: DecoderStack, head: Sequence[Matrix]) -> None:
        self.shape, self._stack, self._head = stack.shape, stack, list(head)

    def pool_address(self) -> int:
        """Address of the KV pool."""
        return self._stack.memory.data_ptr()

    def copy_block(self, source: int, target: int) -> None:
        self._stack.copy_block(source, target)

    def scrub(self, blocks: Sequence[int]) -> None:
        self._stack.memory[list(blocks)] = 0

    @torch.inference_mode()
    def run(self, inputs_embeds: torch.Tensor, bindings: Mapping[str, np.ndarray]) -> EngineOutputs:
        """See ``Engine.run``. Rows of another type or device are converted."""
        assert bindings["host_kv_cache_pool_pointers"][0, 0] == self.pool_address(), "bindings of another engine"
        memory = self._stack.memory
        tables = torch.from_numpy(np.ascontiguousarray(bindings["kv_cache_block_offsets"][0])).to(memory.device)
        hidden = self._stack(inputs_embeds.to(memory), rows_of(bindings, memory.device), tables)
        last = hidden[torch.from_numpy(bindings["last_token_ids"].astype(np.int64) - 1).to(memory.device)]
        for matrix in self._head:
            last = matrix(last)
        return EngineOutputs(hidden_states=hidden, logits=last.float())


def rows_of(bindings: Mapping[str, np.ndarray], device: torch.device) -> Rows:
    """The rows of a packed step; sequence numbers stand for slots."""
    ends = bindings["sequence_length"].astype(np.int64)
    is_context = bindings["host_request_types"] == CONTEXT
    lengths = np.where(is_context, bindings["host_context_lengths"], 1).astype(np.int64)
    sequence = np.repeat(np.arange(len(ends)), lengths)
    first_row = np.cumsum(lengths) - lengths
    positions = (ends - lengths)[sequence] + np.arange(len(sequence)) - first_row[sequence]
    tiles = cut_tiles(lengths[is_context].tolist())
    return Rows(
        slots=torch.from_numpy(sequence.astype(np.int32)).to(device),
        positions=torch.from_numpy(positions.astype(np.int32)).to(device),
        tiles=torch.tensor(tiles, dtype=torch.int32, device=device) if tiles else None,
        contexts=int(lengths[is_context].sum()),
    )
