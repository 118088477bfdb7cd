"""Packed bindings against the recorded facts of the TensorRT-LLM engine contract."""

import json
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.base import EngineShape
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Packer, Row, advance

CONTRACT = json.loads((Path(__file__).parents[2] / "contracts" / "tensorrt_llm_1_2_1.json").read_text())
SHAPE = EngineShape(
    hidden_size=8,
    num_layers=3,
    num_kv_heads=2,
    head_dim=4,
    max_batch_size=6,
    max_num_tokens=64,
    max_seq_len=100,
    tokens_per_block=8,
    num_blocks=40,
)
ADDRESS = 4096
ROWS = [Row(4, 0, 9, 20, True), Row(1, 16, 4, 20, True), Row(0, 33, 1, 30, False), Row(2, 7, 1, 5, False)]


@pytest.fixture
def packer():
    cache = KvCache(SHAPE)
    for slot, positions in ((4, 30), (1, 30), (0, 60), (2, 10)):
        cache.allocate(slot, positions)
    return Packer(SHAPE, cache, ADDRESS)


def inputs():
    """Inputs that the packer fills: all but the embeddings and the positions, which our engines leave out."""
    return [e for e in CONTRACT["engine_inputs"] if e["name"] not in ("inputs_embeds", "position_ids")]


def test_names_types_and_shapes_are_the_contracts(packer):
    bindings = packer.pack(ROWS)
    sizes = {
        "num_sequences": len(ROWS),
        "num_layers": SHAPE.num_layers,
        "num_pools": 1,
        "beam_width": 1,
        "max_batch_size": SHAPE.max_batch_size,
        "max_seq_len": SHAPE.max_seq_len,
        "max_blocks_per_seq": 13,
    }
    assert sorted(bindings) == sorted(e["name"] for e in inputs())
    for entry in inputs():
        array = bindings[entry["name"]]
        assert array.dtype == np.dtype(entry["dtype"]), entry["name"]
        assert array.shape == tuple(sizes.get(d, d) for d in entry["shape"]), entry["name"]
        assert array.flags.c_contiguous, entry["name"]


def test_values_of_a_mixed_batch(packer):
    b = packer.pack(ROWS)
    assert b["last_token_ids"].tolist() == [9, 13, 14, 15]
    assert b["sequence_length"].tolist() == [9, 20, 34, 8]
    assert b["context_lengths"].tolist() == b["host_context_lengths"].tolist() == [9, 4, 30, 5]
    assert b["host_request_types"].tolist() == [0, 0, 1, 1]
    assert b["host_past_key_value_lengths"].tolist() == [9, 20, 33, 7]
    assert b["host_max_attention_window_sizes"].tolist() == [100] * 3
    assert b["host_runtime_perf_knobs"].tolist() == [1] + [-1] * 15
    assert b["host_kv_cache_pool_pointers"].tolist() == [[ADDRESS, 0]]
    assert b["host_kv_cache_pool_mapping"].tolist() == [[0, 0], [0, 1], [0, 2]]


def test_block_offsets_follow_the_rule(packer):
    offsets = packer.pack(ROWS)["kv_cache_block_offsets"][0]
    keys, values = offsets[0]
    used = -(-30 // SHAPE.tokens_per_block)
    assert (keys[:used] % (SHAPE.num_layers * 2) == 0).all()
    assert (values[:used] == keys[:used] + 1).all()
    assert not keys[used:].any() and not values[used:].any()
    blocks = [set(row[0][row[1] > 0].tolist()) for row in offsets]
    assert sum(map(len, blocks)) == len(set().union(*blocks)), "no block belongs to two sequences"


def test_advance_moves_generation_rows_only(packer):
    before = packer.pack(ROWS[2:])
    kept = {name: array.copy() for name, array in before.items()}
    after = advance(before)
    assert after["sequence_length"].tolist() == [35, 9]
    assert after["host_past_key_value_lengths"].tolist() == [34, 8]
    assert after["context_lengths"].tolist() == [30, 5]
    for name, array in kept.items():
        np.testing.assert_array_equal(before[name], array, err_msg=f"{name} of the step in flight was changed")
    with pytest.raises(AssertionError):
        advance(packer.pack(ROWS))


def test_pool_layout_is_the_contracts():
    names = {
        "num_blocks": 40,
        "num_layers": 3,
        "num_kv_heads": 2,
        "tokens_per_block": 8,
        "head_size": 4,
    }
    assert SHAPE.pool_shape == tuple(names.get(d, d) for d in CONTRACT["kv_pool"]["layout"])


def test_blocks_return_and_are_never_shared():
    cache = KvCache(SHAPE)
    cache.allocate(0, 100)
    cache.allocate(1, 100)
    assert cache.free_blocks == cache.unheld_blocks == 40 - 26
    cache.release(0)
    cache.allocate(2, 100)
    tables = cache.offsets[1:3, 0]
    assert len(set(tables.ravel().tolist())) == 26
    cache.release(1)
    cache.release(2)
    assert cache.free_blocks == 40


@pytest.mark.parametrize(("field", "value"), [("tokens_per_block", 12), ("num_blocks", 0)])
def test_shapes_are_checked(field, value):
    values = {name: getattr(SHAPE, name) for name in SHAPE.__slots__} | {field: value}
    with pytest.raises(ValueError, match=field):
        EngineShape(**values)
