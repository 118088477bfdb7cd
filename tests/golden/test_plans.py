"""Token2wav over compiled plans, with a double that executes: built from our graphs, asked for what the stages need."""

import sys
from dataclasses import replace

import numpy as np
import plan_double
import pytest
import token2wav_data as data
import torch
from token2wav_data import close
from token2wav_stages import MAX_STREAMS, call, render, tokens_of

from builders.tensorrt.plans import PlanSpec, compile_plan
from runtime.errors import BuildError, EngineFault
from runtime.graphs.memory import TorchMemory
from runtime.graphs.plan import ALIGNMENT, PLAN_SUFFIX, PlanGraph
from runtime.graphs.tensorrt import Plan
from runtime.token2wav import build
from runtime.token2wav.hops import ALIGNED_HOPS, STEADY_HOPS
from runtime.token2wav.layout import FRONT_GRAPH, STEP_GRAPHS, VOCODER_GRAPH, Sizes
from runtime.token2wav.options import Token2WavOptions

pytestmark = pytest.mark.golden
OPTIONS = Token2WavOptions(max_streams=MAX_STREAMS)


@pytest.fixture
def trt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", plan_double)
    monkeypatch.setattr(plan_double.Builder, "configs", ())
    return plan_double


def compiled(exported, folder, options):
    """Plans of all graphs of token2wav, opened."""
    profiles, graphs = build.plan_profiles(Sizes.read(exported), options), {}
    for name, profile in profiles.items():
        spec = PlanSpec(exported / name, (folder / name).with_suffix(PLAN_SUFFIX), profile)
        [path] = compile_plan(spec, folder / "timing" / "gpu.cache")
        plan = Plan(plan_double, name, path.read_bytes(), plan_double.STREAM)
        graphs[name] = PlanGraph(name, profile, plan, plan_double.Device(), plan_double.allocate)
    return graphs


def stages_of(exported, graphs, options):
    memory, step = TorchMemory("cpu"), graphs[STEP_GRAPHS[options.precision]].run
    sizes = (options.max_streams, options.window)
    flow = build._flow(exported, graphs[FRONT_GRAPH].run, step, *sizes, False, options.precision, memory)
    return flow, build._vocoder(exported, graphs[VOCODER_GRAPH].run, options.max_streams, memory)


@pytest.mark.parametrize(("name", "hops"), [("T063_D", ALIGNED_HOPS), ("T200_E", STEADY_HOPS)])
def test_streaming_over_plans_equals_the_authors_calls(trt, exported, tmp_path, name, hops):
    stages = stages_of(exported, compiled(exported, tmp_path, OPTIONS), OPTIONS)
    mels, sounds = render(stages, tokens_of(name[:4]), hops)
    golden = data.vectors()
    [key] = [key for key in golden if key.startswith(f"{name}_mel")]
    every = int(key.rpartition("_")[2]) if "every" in key else 1
    close(np.concatenate(mels, axis=1)[:, ::every], golden[key], 1e-4)
    assert [len(sound) for sound in sounds] == golden[f"{name}_calls"][:, 4].tolist()


def test_half_precision_plan_with_batches_and_long_chunks(trt, exported, tmp_path):
    """Caches in 16 bit; a chunk of many blocks beside a short one, over a small window."""
    options = replace(OPTIONS, precision="float16", window=2)
    stages = stages_of(exported, compiled(exported, tmp_path, options), options)
    reference = build.onnx_flow(exported, 1, MAX_STREAMS, window=2)
    tokens = tokens_of("T200")
    out = call(stages, [1, 2], [3, 3], [tokens * 2, tokens[:9]])
    expected = call((reference, stages[1]), [1, 2], [3, 3], [tokens * 2, tokens[:9]])
    assert out["mel_lengths"].tolist() == [800, 18]
    assert 0 < np.sqrt(np.mean((out["mel"] - expected["mel"]) ** 2)) <= 1e-3


def test_builds_are_strict_and_share_measured_times(trt, exported, tmp_path):
    compiled(exported, tmp_path, OPTIONS)
    assert all(config.cleared == ["tf32"] for config in trt.Builder.configs)
    assert (tmp_path / "timing" / "gpu.cache").read_bytes() == b"+++", "each build adds to the same cache"
    assert not list(tmp_path.rglob("*.part"))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BuildError, match=r"broken\.onnx: TensorRT cannot parse it: unreadable"):
        compile_plan(PlanSpec(tmp_path / "broken.onnx", tmp_path / "x.plan", {}), tmp_path / "cache")
    assert not (tmp_path / "x.plan").exists()


def test_a_plan_for_other_shapes_is_refused(trt, exported, tmp_path):
    graphs = compiled(exported, tmp_path, OPTIONS)
    sizes = Sizes.read(exported)
    for option in ("window", "max_batch", "max_streams"):
        change = {option: getattr(OPTIONS, option) + 1}
        profile = build.plan_profiles(sizes, replace(OPTIONS, **change))[STEP_GRAPHS["float32"]]
        plan = graphs[STEP_GRAPHS["float32"]]._plan
        with pytest.raises(BuildError, match=r"is compiled for .* asked for .*; run make build-engines again"):
            PlanGraph("flow_step", profile, plan, trt.Device(), trt.allocate)
    with pytest.raises(BuildError, match=r"the plan takes .*, the runtime gives"):
        PlanGraph("flow_step", {}, graphs[FRONT_GRAPH]._plan, trt.Device(), trt.allocate)


def test_wrong_arrays_are_named(trt, exported, tmp_path):
    graph = compiled(exported, tmp_path, OPTIONS)[FRONT_GRAPH]
    good = {
        "tokens": torch.zeros(1, 10, dtype=torch.int64), "valid": torch.ones(1, 10), "embedding": torch.ones(1, 192),
    }  # fmt: skip
    assert graph.run(good)["mu"].shape == (1, 80, 10)
    with pytest.raises(EngineFault, match="input valid is missing, float32 is needed"):
        graph.run({name: array for name, array in good.items() if name != "valid"})
    with pytest.raises(EngineFault, match=r"input tokens has type torch\.int32"):
        graph.run(good | {"tokens": good["tokens"].int()})
    with pytest.raises(EngineFault, match=r"tokens cannot have shape \[99, 10\]"):
        graph.run(good | {"tokens": torch.zeros(99, 10, dtype=torch.int64)})


def test_a_view_that_begins_anywhere_is_not_bound_where_it_lies(trt, exported, tmp_path):
    """TensorRT wants aligned addresses: a view inside another tensor is copied, whole tensors are not."""
    graph = compiled(exported, tmp_path, OPTIONS)[FRONT_GRAPH]
    storage = torch.zeros(ALIGNMENT + 2 * 200 * 4, dtype=torch.uint8)
    begin = -storage.data_ptr() % ALIGNMENT
    whole = storage[begin : begin + 800].view(torch.float32)
    assert graph._bindable("embedding", {"embedding": whole}).data_ptr() == whole.data_ptr()
    inside = whole[1:]
    copied = graph._bindable("embedding", {"embedding": inside})
    assert copied.data_ptr() != inside.data_ptr() and torch.equal(copied, inside)
