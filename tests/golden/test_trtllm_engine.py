"""The whole compiled engine's runtime over a double that computes: order of work, memory, graphs, refusals."""

import numpy as np
import parity_data
import pytest
import torch
from rigs import PROFILES, golden_weights, torch_engine
from tensorrt_double import Double, serialise

from builders.parity.cases import GENERATED
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Packer, Row, advance
from runtime.engines.trtllm import buffers as trtllm_buffers
from runtime.engines.trtllm.check import EngineMismatch
from runtime.errors import BuildError, EngineFault

pytestmark = pytest.mark.golden
STACK = "backbone"


@pytest.fixture(scope="module")
def trace():
    return parity_data.backbone("noise_2p3s", golden_weights()).trace


def packer_of(engine):
    cache = KvCache(engine.shape)
    for slot in range(2):
        cache.allocate(slot, 60)
    return Packer(engine.shape, cache, engine.pool_address())


def prefill(engine, packer, trace):
    rows = [Row(slot, 0, trace.prompt, trace.prompt, True) for slot in range(2)]
    return engine.run(trace.rows[: trace.prompt].repeat(2, 1), packer.pack(rows))


def generate(engine, packer, trace, steps=GENERATED, clone=True):
    """Logits of the generation steps of two equal sequences, bindings advanced from step to step."""
    bindings = packer.pack([Row(slot, trace.prompt, 1, trace.prompt, False) for slot in range(2)])
    found = []
    for number in range(steps):
        row = trace.rows[trace.prompt + number]
        out = engine.run(row.repeat(2, 1), bindings)
        found.append(out.logits.clone() if clone else out.logits)
        bindings = advance(bindings)
    return found


@pytest.fixture(scope="module")
def expected(trace):
    engine = torch_engine(STACK)
    packer = packer_of(engine)
    prefill(engine, packer, trace)
    return generate(engine, packer, trace)


def test_outputs_belong_to_the_caller_without_a_host_wait(trace, expected):
    double = Double(STACK)
    packer = packer_of(double.engine)
    out = prefill(double.engine, packer, trace)
    assert out.hidden_states.shape == (2 * trace.prompt, double.engine.shape.hidden_size)
    found = generate(double.engine, packer, trace)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-5, rtol=0)


def test_steps_in_flight_do_not_disturb_each_other(trace, expected, monkeypatch):
    """Nothing runs until the third step needs host memory of the first; the double checks what each one sees."""
    monkeypatch.setattr(trtllm_buffers, "TURNS", 2)
    double = Double(STACK, hands_over=False)
    packer = packer_of(double.engine)
    prefill(double.engine, packer, trace)
    last = generate(double.engine, packer, trace, clone=False)[-1]
    assert double.device.waits == GENERATED - 1, "one wait per step from the third on, for the step before the last"
    double.device.drain()
    torch.testing.assert_close(last, expected[-1], atol=1e-5, rtol=0)


def test_two_frames_of_the_speech_head_are_queued_without_a_wait(trace):
    """The host is a frame ahead only if no call waits for the memory of one that has not run."""
    double = Double(STACK, hands_over=False)
    packer = packer_of(double.engine)
    prefill(double.engine, packer, trace)
    for _ in range(10):
        generate(double.engine, packer, trace, steps=1, clone=False)
    assert double.device.waits == 0
    double.device.drain()


def test_advanced_steps_copy_only_what_changed(trace):
    double = Double(STACK)
    packer = packer_of(double.engine)
    prefill(double.engine, packer, trace)
    generate(double.engine, packer, trace, steps=1)
    before = double.device.copies, double.context.shape_changes
    generate(double.engine, packer, trace, steps=1)  # packed anew: all four arrays at once, side by side
    assert (double.device.copies - before[0], double.context.shape_changes - before[1]) == (2, 0)
    bindings = packer.pack([Row(slot, trace.prompt, 1, trace.prompt, False) for slot in range(2)])
    double.engine.run(trace.rows[:2], bindings)
    before = double.device.copies
    double.engine.run(trace.rows[:2], advance(bindings))
    assert double.device.copies - before == 2, "the embeddings and the sequence lengths"


@pytest.mark.parametrize("hands_over", [True, False])
def test_captured_steps_give_the_same(trace, expected, hands_over):
    double = Double(STACK, graphs=2, hands_over=hands_over)
    packer = packer_of(double.engine)
    prefill(double.engine, packer, trace)
    found = generate(double.engine, packer, trace, clone=hands_over)
    double.device.drain()
    assert len(double.engine._graphs) == 1
    torch.testing.assert_close(found[-1], expected[-1], atol=1e-5, rtol=0)
    if hands_over:
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-5, rtol=0)
    # Contexts in between rewrite all host memory but the graph's own; then the graph again.
    packer = packer_of(double.engine)
    for _ in range(2):
        prefill(double.engine, packer, trace)
    again = generate(double.engine, packer, trace, clone=hands_over)
    double.device.drain()
    torch.testing.assert_close(again[-1], expected[-1], atol=1e-5, rtol=0)


def test_a_step_that_cannot_be_captured_switches_graphs_off(trace, expected, monkeypatch, caplog):
    double = Double(STACK, graphs=2)

    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(double.device, "capture", refuse)
    packer = packer_of(double.engine)
    prefill(double.engine, packer, trace)
    found = generate(double.engine, packer, trace)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=1e-5, rtol=0)
    assert "not permitted when stream is capturing" in caplog.text and len(caplog.records) == 1


def test_rows_of_another_dtype_are_converted(trace):
    double = Double(STACK)
    out = prefill(double.engine, packer_of(double.engine), trace)
    expected = out.hidden_states.clone()
    rows = trace.rows[: trace.prompt].double().repeat(2, 1)
    packer = packer_of(double.engine)
    bindings = packer.pack([Row(slot, 0, trace.prompt, trace.prompt, True) for slot in range(2)])
    torch.testing.assert_close(double.engine.run(rows, bindings).hidden_states, expected)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("host_kv_cache_pool_mapping", {"shape": [5], "ranges": [[5]] * 3, "dims": ["layers"]}, r"shape of host_kv"),
        (
            "sequence_length",
            {"dtype": "INT64"},
            r"dtype of sequence_length: the engine has input sequence_length int64",
        ),
        ("logits", {"dtype": "BF16"}, r"the engine has output logits bfloat16 .*, the runtime output logits float32"),
        ("last_token_ids", {"tensor": None}, r"the engine has no input last_token_ids int32"),
        ("hidden_states", {"tensor": None}, r"the engine has no output hidden_states"),
        ("position_ids", {"dtype": "INT32", "shape": [-1], "ranges": [[1]] * 3}, r"which the runtime does not know"),
        ("context_lengths", {"ranges": [[1], [1], [3]]}, r"shape of context_lengths: .*\[1\] to \[3\], .*=1\.\.4"),
    ],
)
def test_an_engine_that_differs_is_refused(name, change, words):
    with pytest.raises(EngineMismatch, match=words) as caught:
        Double(STACK, plan=serialise(PROFILES[STACK], name, **change))
    assert caught.value.field == STACK and "make build-engines" in caught.value.remedy


def test_fixed_axes_may_be_reported_as_dynamic():
    ranges = [list(r) for r in PROFILES[STACK].inputs[0].ranges]
    assert Double(STACK, plan=serialise(PROFILES[STACK], "inputs_embeds", shape=[-1, -1], ranges=ranges))
    loose = [[1, 1], [1, 64], [999_999, 64]]
    assert Double(STACK, plan=serialise(PROFILES[STACK], "inputs_embeds", shape=[-1, -1], ranges=loose))


def test_what_is_no_engine_is_refused():
    with pytest.raises(BuildError, match="cannot deserialize"):
        Double(STACK, plan=b"not an engine")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: b | {"sequence_length": b["sequence_length"].astype(np.int64)}, "sequence_length: is int64"),
        (lambda b: b | {"sequence_length": np.zeros(9, np.int32)}, r"sequence_length: has shape \[9\]"),
        (lambda b: {n: a for n, a in b.items() if n != "last_token_ids"}, "last_token_ids: is not among"),
        (lambda b: b | {"position_ids": np.zeros(2, np.int32)}, "position_ids: is no input"),
        (lambda b: b | {"host_kv_cache_pool_pointers": np.zeros((1, 2), np.int64)}, "pool of another engine"),
        (lambda b: b | {"last_token_ids": np.array([1, 3], np.int32)}, "last_token_ids: ends at 3 of 2 rows"),
        (lambda b: b | {"host_request_types": np.array([1, 0], np.int32)}, "contexts must come first"),
    ],
)
def test_a_step_that_breaks_a_rule_is_refused_before_anything_is_queued(trace, spoil, words):
    double = Double(STACK)
    bindings = packer_of(double.engine).pack([Row(slot, 5, 1, 5, False) for slot in range(2)])
    with pytest.raises(EngineFault, match=words):
        double.engine.run(trace.rows[:2], spoil(bindings))
    assert double.device.copies == 0


def test_a_chunk_longer_than_the_engine_was_built_for_is_refused(trace):
    double = Double("speech")
    shape = double.engine.shape
    cache = KvCache(shape)
    cache.allocate(0, 1281 - 1)
    packer = Packer(shape, cache, double.engine.pool_address())
    rows = torch.zeros(shape.max_num_tokens, shape.hidden_size)
    with pytest.raises(EngineFault, match="exceed max_input_len"):
        double.engine.run(rows, packer.pack([Row(0, 0, len(rows), len(rows), True)]))


def test_the_speech_head_has_no_hidden_states():
    double = Double("speech")
    cache = KvCache(double.engine.shape)
    cache.allocate(0, 10)
    packer = Packer(double.engine.shape, cache, double.engine.pool_address())
    out = double.engine.run(torch.zeros(10, double.engine.shape.hidden_size), packer.pack([Row(0, 0, 10, 10, True)]))
    assert out.hidden_states.shape == (0, double.engine.shape.hidden_size)
    assert out.logits.shape == (1, PROFILES["speech"].output_size)
