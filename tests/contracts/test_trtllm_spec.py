"""The declaration of engine tensors against the recorded contract and against the packer."""

import json
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.base import EngineShape
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Packer, Row
from runtime.engines.trtllm.spec import DEVICE, HOST, Dim, EngineProfile, TensorSpec

CONTRACT = json.loads((Path(__file__).parent / "tensorrt_llm_1_2_1.json").read_text())
SHAPE = EngineShape(
    hidden_size=8,
    num_layers=3,
    num_kv_heads=2,
    head_dim=4,
    max_batch_size=6,
    max_num_tokens=64,
    max_seq_len=100,
    tokens_per_block=8,
    num_blocks=80,
)
PROFILE = EngineProfile(SHAPE, 17, "bfloat16", max_input_len=58, opt_num_tokens=6, hidden_states=True)
SIZES = {
    "hidden_size": 8,
    "num_layers": 3,
    "max_batch_size": 6,
    "max_num_tokens": 64,
    "opt_num_tokens": 6,
    "max_seq_len": 100,
    "num_pools": 1,
    "beam_width": 1,
    "vocab_size_padded": 17,
    "model_dtype": "bfloat16",
    "(max_batch_size+1)//2": 3,
    "(max_seq_len+1)//2": 50,
    "ceil(((max_seq_len+1)//2)/tokens_per_block)": 7,
    "ceil(max_seq_len/tokens_per_block)": 13,
    "logits_dtype (default float32)": "float32",
}


def from_contract(entry):
    """The contract's entry as a specification; an output's rows are named as those of the input that gives them.

    The library allows up to a pool per layer; we declare the one that we have.
    """
    ranges = entry.get("profile_ranges", {}) | {"vocab_size_padded": ["vocab_size_padded"] * 3}
    if "num_pools" in ranges:
        assert ranges["num_pools"] == [1, 1, "num_layers"]
        ranges["num_pools"] = [1, 1, 1]
    ranges.setdefault("num_tokens", [1, "opt_num_tokens", "max_num_tokens"])
    ranges.setdefault("num_sequences", [1, "(max_batch_size+1)//2", "max_batch_size"])
    shape = entry["shape"]
    names = entry.get("upstream_dim_names") or [
        {"num_sequences": "batch_size_last_token_ids", "vocab_size_padded": "vocab_size"}.get(d, d) for d in shape
    ]
    dims = tuple(
        Dim(name, *(SIZES.get(v, v) for v in ranges.get(size, [size] * 3)))
        for name, size in zip(names, shape, strict=True)
    )
    return TensorSpec(entry["name"], SIZES.get(entry["dtype"], entry["dtype"]), entry["location"], dims)


def test_inputs_are_the_contracts():
    expected = [from_contract(e) for e in CONTRACT["engine_inputs"] if not e["optional"]]
    assert list(PROFILE.inputs) == expected


def test_outputs_are_the_contracts():
    assert list(PROFILE.outputs) == [from_contract(e) for e in CONTRACT["engine_outputs"]]
    speech = EngineProfile(SHAPE, 17, "bfloat16", 58, 6, hidden_states=False)
    assert list(speech.outputs) == [from_contract(e) for e in CONTRACT["engine_outputs"] if "srh" in e["engines"]]


def test_a_named_axis_has_one_range():
    ranges = {}
    for dim in (dim for spec in PROFILE.inputs + PROFILE.outputs for dim in spec.dims):
        assert ranges.setdefault(dim.name, dim) == dim


@pytest.mark.parametrize("rows", [1, 6])
def test_what_the_packer_fills_may_be_bound(rows):
    cache = KvCache(SHAPE)
    for slot in range(rows):
        cache.allocate(slot, 100)
    bindings = Packer(SHAPE, cache, 4096).pack([Row(slot, 0, 9, 20, True) for slot in range(rows)])
    specs = {spec.name: spec for spec in PROFILE.inputs}
    assert set(specs) - set(bindings) == {"inputs_embeds"} and not set(bindings) - set(specs)
    for name, array in bindings.items():
        assert array.dtype == np.dtype(specs[name].dtype), name
        assert specs[name].allows(array.shape), f"{specs[name]} does not take {array.shape}"
        assert specs[name].location == (HOST if name.startswith("host_") else DEVICE)


def test_allows_refuses_what_is_outside():
    spec = PROFILE.inputs[0]
    assert spec.allows((64, 8))
    assert not spec.allows((65, 8)) and not spec.allows((64, 9)) and not spec.allows((64,))
    assert str(spec) == "inputs_embeds bfloat16 [num_tokens=1..64, hidden_size=8] on the device"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int8"}, "dtype: 'int8'"),
        ({"max_input_len": 65}, r"max_input_len: 65 is not within 1\.\.64"),
        ({"opt_num_tokens": 0}, "opt_num_tokens: 0"),
        ({"output_size": 0}, "output_size"),
    ],
)
def test_impossible_profiles_are_refused(change, message):
    values = {name: getattr(PROFILE, name) for name in EngineProfile.__slots__} | change
    with pytest.raises(ValueError, match=message):
        EngineProfile(**values)
