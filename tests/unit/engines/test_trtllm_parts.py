"""The small parts under the compiled engine: arena, graph policy, plugin library, engine folder, case scripts."""

import ctypes
import json

import numpy as np
import pytest
import torch

from builders.parity.cases import FIRST_CHUNK, Join, Leave, Step, five_cases
from runtime.engines.base import EngineShape
from runtime.engines.kv_cache import KvCache
from runtime.engines.trtllm.arena import HostArena, Layout, Region, copy_runs, plan_layout
from runtime.engines.trtllm.check import EngineMismatch
from runtime.engines.trtllm.files import CONFIG_FILE, check_config, expected_config
from runtime.engines.trtllm.plugin import NAMESPACE, load_plugins, plugin_library
from runtime.engines.trtllm.spec import HOST, EngineProfile
from runtime.engines.trtllm.step_graphs import (
    PAST_STEP,
    Captured,
    Decision,
    GraphCache,
    GraphKey,
    graph_key,
    with_bound,
)
from runtime.errors import BuildError
from runtime.graphs.device import ALIGNMENT, aligned
from runtime.graphs.tensorrt import load_tensorrt

SHAPE = EngineShape(
    hidden_size=8,
    num_layers=3,
    num_kv_heads=2,
    head_dim=4,
    max_batch_size=6,
    max_num_tokens=600,
    max_seq_len=1000,
    tokens_per_block=8,
    num_blocks=80,
)
PROFILE = EngineProfile(SHAPE, 17, "bfloat16", max_input_len=580, opt_num_tokens=6, hidden_states=True)


def test_every_tensor_has_room_for_its_largest_shape_and_an_aligned_place():
    host = [spec for spec in PROFILE.inputs if spec.location == HOST]
    layout = plan_layout(host)
    end = 0
    for spec in host:
        largest = np.zeros(spec.ranges[2], spec.dtype)
        assert layout.regions[spec.name].size == largest.nbytes
    for region in layout.regions.values():
        assert region.begin % ALIGNMENT == 0 and region.begin >= end
        end = region.begin + region.size
    assert end <= layout.size
    assert list(layout.regions)[-1] == "host_kv_cache_block_offsets", "the large table comes last"


LAYOUT = Layout({"a": Region(0, 8), "b": Region(256, 8), "c": Region(512, 400)}, 1024)


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ({}, []),
        ({"b": 4}, [slice(256, 260)]),
        ({"a": 8, "b": 4, "c": 100}, [slice(0, 612)]),
        ({"a": 8, "c": 100}, [slice(0, 8), slice(512, 612)]),
        ({"b": 8, "c": 0}, [slice(256, 512)]),
    ],
)
def test_neighbours_are_copied_together_and_never_across_what_did_not_change(changed, runs):
    assert copy_runs(LAYOUT, changed) == runs


def test_an_arena_holds_values_and_writes_an_array_once():
    arena = HostArena(LAYOUT, torch.zeros(1024, dtype=torch.uint8))
    first = np.array([3, 4], np.int32)
    arena.write("b", first)
    assert arena.memory[256:264].view(torch.int32).tolist() == [3, 4]
    assert arena.address("b") == arena.memory.data_ptr() + 256
    arena.memory.zero_()
    arena.write("b", first)
    assert not arena.memory.any(), "the same array again is no work"
    arena.write("b", first.copy())
    assert arena.memory[256:264].view(torch.int32).tolist() == [3, 4]


def test_aligned_memory_begins_at_an_aligned_address():
    memory = torch.zeros(1000, dtype=torch.uint8)
    for skip in range(3):
        found = aligned(memory[skip:], 500)
        assert len(found) == 500 and found.data_ptr() % ALIGNMENT == 0


def step(past, kinds=None):
    kinds = [1] * len(past) if kinds is None else kinds
    return {
        "host_request_types": np.array(kinds, np.int32),
        "host_past_key_value_lengths": np.array(past, np.int32),
    }


@pytest.mark.parametrize(("past", "bound"), [([1, 2], 256), ([256], 256), ([257, 3], 512), ([769], 999), ([999], 999)])
def test_the_bound_of_a_graph_covers_every_sequence(past, bound):
    key = graph_key(step(past), SHAPE.max_seq_len)
    assert key == GraphKey(len(past), bound)
    assert key.bound % PAST_STEP == 0 or key.bound == SHAPE.max_seq_len - 1
    bindings = with_bound(step(past), key)
    assert bindings["host_past_key_value_lengths"].tolist() == [bound] * len(past)
    assert bindings["host_past_key_value_lengths"].dtype == np.int32


def test_a_step_with_a_context_has_no_graph():
    assert graph_key(step([5, 7], [0, 1]), SHAPE.max_seq_len) is None


def test_a_graph_is_captured_at_the_second_sighting_and_the_oldest_goes():
    cache = GraphCache(2)
    keys = [GraphKey(n, 256) for n in (1, 2, 3)]
    for key in keys[:2]:
        assert [cache.decide(key) for _ in range(2)] == [Decision.RUN, Decision.RUN_AND_CAPTURE]
        cache.put(key, Captured(lambda: None, HostArena(LAYOUT, torch.zeros(1024, dtype=torch.uint8))))
        assert cache.decide(key) is Decision.REPLAY
    cache.get(keys[0])
    cache.decide(keys[2])
    assert cache.decide(keys[2]) is Decision.RUN_AND_CAPTURE
    cache.put(keys[2], cache.get(keys[0]))
    assert len(cache) == 2
    assert [cache.decide(key) for key in keys] == [Decision.REPLAY, Decision.RUN, Decision.REPLAY]


def test_without_graphs_no_step_has_a_key():
    cache = GraphCache(0)
    assert cache.key(step([4]), 100) is None and cache.decide(None) is Decision.RUN
    with pytest.raises(ValueError, match="graphs: -1"):
        GraphCache(-1)
    busy = GraphCache(1)
    assert busy.key(step([4]), 100) == GraphKey(1, 99)
    busy.switch_off()
    assert busy.key(step([4]), 100) is None


class Library:
    """Stands for the plugin's shared library; remembers how it was asked."""

    def __init__(self, answer):
        def register(where, namespace):
            self.asked = where, namespace
            return answer

        self.initTrtLlmPlugins = register


def test_plugins_are_registered_in_their_namespace(tmp_path):
    library, opened = Library(True), []

    def load(path, mode):
        opened.append((path, mode))
        return library

    load_plugins(tmp_path / "plugin.so", load)
    assert opened == [(str(tmp_path / "plugin.so"), ctypes.RTLD_GLOBAL)]
    assert library.asked == (None, NAMESPACE)
    assert library.initTrtLlmPlugins.argtypes == [ctypes.c_void_p, ctypes.c_char_p]
    assert library.initTrtLlmPlugins.restype is ctypes.c_bool


def test_a_library_that_fails_is_named(tmp_path):
    with pytest.raises(BuildError, match=r"plugin\.so: cannot be loaded"):
        load_plugins(tmp_path / "plugin.so")
    with pytest.raises(BuildError, match=r"plugin\.so: did not register"):
        load_plugins(tmp_path / "plugin.so", lambda path, mode: Library(False))


def test_what_is_not_installed_is_named_with_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.engines.trtllm.plugin.PACKAGE", "no_such_package_here")
    with pytest.raises(BuildError, match=r"compose\.yaml"):
        plugin_library()
    package = tmp_path / "no_such_package_here" / "libs"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "libnvinfer_plugin_tensorrt_llm.so").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert plugin_library() == package / "libnvinfer_plugin_tensorrt_llm.so"
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(BuildError, match=r"tensorrt: cannot be imported .*compose\.yaml"):
        load_tensorrt()


def engine_config(**change):
    config = {}
    for dotted, value in (expected_config(PROFILE) | change).items():
        *parents, last = dotted.split(".")
        at = config
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return json.dumps(config)


def test_the_engine_folder_must_say_what_the_runtime_needs(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(engine_config())
    check_config("backbone", tmp_path, PROFILE)
    block = "build_config.plugin_config.tokens_per_block"
    (tmp_path / CONFIG_FILE).write_text(engine_config(**{block: 64, "version": "1.0.0"}))
    with pytest.raises(EngineMismatch) as caught:
        check_config("backbone", tmp_path, PROFILE)
    assert f"{block}: the engine was built with 64, the runtime needs 8" in str(caught.value)
    assert "version: the engine was built with '1.0.0', the runtime needs '1.2.1'" in str(caught.value)
    (tmp_path / CONFIG_FILE).write_text("{}")
    with pytest.raises(EngineMismatch, match="built with None"):
        check_config("backbone", tmp_path, PROFILE)
    with pytest.raises(EngineMismatch, match="cannot be read"):
        check_config("backbone", tmp_path / "nowhere", PROFILE)


def test_scripts_run_every_position_of_a_trace_once_and_in_order():
    prompts = (40, 33, 21, 50)
    for case in five_cases(prompts, 64, 200):
        done = {}
        for action in case.actions:
            if isinstance(action, Join):
                assert action.trace not in done
                done[action.trace] = 0
            elif isinstance(action, Leave):
                assert done[action.trace] > prompts[action.trace]
            else:
                assert isinstance(action, Step)
                kinds = [p.begin < prompts[p.trace] for p in action.pieces]
                assert kinds == sorted(kinds, reverse=True), f"{case.name}: contexts come first"
                for piece in action.pieces:
                    assert piece.begin == done[piece.trace], f"{case.name}: {piece}"
                    done[piece.trace] += piece.length
        assert all(done[trace] >= prompts[trace] for trace in done)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [((9, 9, 9), "need 4"), ((FIRST_CHUNK, 9, 9, 9), "are not all within 8..64"), ((60, 60, 9, 9), "a step of 120")],
)
def test_prompts_that_do_not_suit_are_refused(prompts, words):
    with pytest.raises(ValueError, match=words):
        five_cases(prompts, 64, 100)


def test_blocks_are_handed_out_in_the_given_order():
    order = [5, 3, 70, *(n for n in range(80) if n not in (5, 3, 70))]
    cache = KvCache(SHAPE, order)
    cache.allocate(0, 3 * SHAPE.tokens_per_block)
    assert (cache.offsets[0, 0, :3] // (2 * SHAPE.num_layers)).tolist() == [5, 3, 70]
