"""Rows of a step to engine bindings, as numpy arrays. Knows the contract, not the model.

Every array is named, typed and shaped as the TensorRT-LLM engine takes it; the torch engine reads
the very same arrays. Source of the value rules: section 4 of the engine reference, checked in
tests against the contract file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.engines.base import CONTEXT, GENERATION, PERF_KNOBS, EngineShape
from runtime.engines.kv_cache import KvCache

Bindings = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of a step.

    A context row covers positions ``begin .. begin + length - 1``; a generation row has length 1
    and consumes the token at position ``begin``.
    """

    slot: int
    begin: int
    length: int
    prompt_length: int
    is_context: bool


class Packer:
    """Packs the sequences of one engine. Contexts must come before generation rows."""

    def __init__(self, shape: EngineShape, cache: KvCache, pool_address: int) -> None:
        self.shape, self._cache = shape, cache
        knobs = np.full(PERF_KNOBS, -1, np.int64)
        knobs[0] = 1  # multi-block mode
        self._constant: Bindings = {
            "host_max_attention_window_sizes": np.full(shape.num_layers, shape.max_seq_len, np.int32),
            "host_sink_token_length": np.zeros(1, np.int32),
            "host_runtime_perf_knobs": knobs,
            "host_context_progress": np.zeros(1, np.int64),
            # Never read with one beam, but its last dim is taken as the attention window.
            "cache_indirection": np.zeros((shape.max_batch_size, 1, shape.max_seq_len), np.int32),
            "host_kv_cache_pool_pointers": np.array([[pool_address, 0]], np.int64),
            "host_kv_cache_pool_mapping": np.stack(
                [np.zeros(shape.num_layers, np.int32), np.arange(shape.num_layers, dtype=np.int32)], axis=1
            ),
        }

    def pack(self, rows: list[Row]) -> Bindings:
        """Bindings of a step. Arrays that change are fresh, so a step in flight is never written to."""
        table = np.array([(r.slot, r.begin, r.length, r.prompt_length, not r.is_context) for r in rows], np.int32)
        slots, begin, length, prompt, kind = table.T
        contexts = kind == CONTEXT
        end = begin + length
        offsets = self._cache.offsets[slots][None]  # [1 pool, sequences, 2, blocks]
        lengths = np.where(contexts, length, prompt)
        return self._constant | {
            "last_token_ids": np.cumsum(length, dtype=np.int32),
            "sequence_length": end,
            "context_lengths": lengths,
            "host_context_lengths": lengths,
            "host_request_types": np.ascontiguousarray(kind),
            "host_past_key_value_lengths": np.where(contexts, end, begin),
            "kv_cache_block_offsets": offsets,
            "host_kv_cache_block_offsets": offsets,
        }


def advance(bindings: Bindings) -> Bindings:
    """The bindings of the next step of a generation-only batch: every sequence one position on."""
    assert bindings["host_request_types"].min() == GENERATION, "only generation rows can advance"
    return bindings | {
        "sequence_length": bindings["sequence_length"] + 1,
        "host_past_key_value_lengths": bindings["host_past_key_value_lengths"] + 1,
    }
