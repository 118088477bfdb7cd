"""Our calls of TensorRT against the real bindings, of the oldest version that plans are for and of the newest."""

import ast
import inspect
import sys
from pathlib import Path

import bindings_double
import plan_double
import pytest
import tensorrt_double

from builders import upstream
from builders.tensorrt.plans import PlanSpec, compile_plan
from runtime.errors import BuildError, EngineFault
from runtime.graphs.shapes import Range
from runtime.graphs.tensorrt import TRT_DTYPES, Plan

ROOT = Path(__file__).parents[2]
CALLERS = {  # all of our files that import either library
    "builders/tensorrt/compile.py",
    "builders/tensorrt/fac_engine.py",
    "builders/tensorrt/toolchain.py",
    "runtime/graphs/tensorrt.py",
}
COMPILED = {
    "Builder", "Builder.build_serialized_network", "Builder.create_builder_config", "Builder.create_network",
    "Builder.create_optimization_profile", "BuilderFlag.TF32", "IBuilderConfig.add_optimization_profile",
    "IBuilderConfig.builder_optimization_level", "IBuilderConfig.clear_flag", "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.get_timing_cache", "IBuilderConfig.profiling_verbosity", "IBuilderConfig.set_memory_pool_limit",
    "IBuilderConfig.set_timing_cache", "IOptimizationProfile.set_shape", "ITimingCache.serialize", "Logger",
    "Logger.WARNING", "MemoryPoolType.WORKSPACE", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "OnnxParser",
    "OnnxParser.parse_from_file", "ProfilingVerbosity.DETAILED",
}  # fmt: skip
RUN = {
    "EngineInspector.get_engine_information", "ICudaEngine.create_engine_inspector",
    "ICudaEngine.create_execution_context", "ICudaEngine.get_tensor_dtype", "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_name", "ICudaEngine.get_tensor_profile_shape", "ICudaEngine.get_tensor_shape",
    "ICudaEngine.num_io_tensors", "IExecutionContext.execute_async_v3", "IExecutionContext.get_tensor_shape",
    "IExecutionContext.infer_shapes", "IExecutionContext.set_input_shape",
    "IExecutionContext.set_optimization_profile_async", "IExecutionContext.set_tensor_address",
    "LayerInformationFormat.JSON", "Logger", "Logger.WARNING", "Runtime", "Runtime.deserialize_cuda_engine",
    "TensorIOMode.INPUT",
}  # fmt: skip


@pytest.fixture(scope="module", params=list(upstream.BINDINGS))
def api(request, fetched, tmp_path_factory):
    folder = fetched(upstream.BINDINGS[request.param])
    return bindings_double.read_api(folder, tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def trt(api, monkeypatch):
    module = bindings_double.Module(api)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def spec(tmp_path):
    range_ = Range((1, 80, 2), (4, 80, 100), (16, 80, 1000))
    return PlanSpec(tmp_path / "graph.onnx", tmp_path / "graph.plan", {"x": range_})


def test_the_builder_is_called_as_it_is(trt, spec, tmp_path):
    for _ in range(2):  # the second time with a timing cache
        assert compile_plan(spec, tmp_path / "times.cache") == [spec.out]
    assert spec.out.read_bytes() == (tmp_path / "times.cache").read_bytes() == b"content"
    assert trt.met == COMPILED


@pytest.mark.parametrize(
    ("call", "answer", "message"),
    [
        ("OnnxParser.parse_from_file", False, "cannot parse it"),
        ("IBuilderConfig.add_optimization_profile", -1, r"refuses its profile.* x \[1, 80, 2\].*\[16, 80, 1000\]"),
        ("IBuilderConfig.set_timing_cache", False, r"times\.cache: is of another GPU or TensorRT; remove it"),
        ("Builder.build_serialized_network", None, "found no plan"),
    ],
)
def test_what_the_builder_refuses_is_said(trt, spec, tmp_path, call, answer, message):
    trt.answers[call] = answer
    with pytest.raises(BuildError, match=message):
        compile_plan(spec, tmp_path / "times.cache")
    assert not spec.out.exists()


def test_the_runtime_is_called_as_it_is(trt):
    trt.answers["ICudaEngine.get_tensor_mode"] = trt.TensorIOMode.INPUT
    trt.answers["ICudaEngine.get_tensor_profile_shape"] = [(1,), (2,), (3,)]
    trt.answers["ICudaEngine.get_tensor_dtype"] = trt.DataType.HALF
    plan = Plan(trt, "a plan", b"content", stream=5)
    [fact] = plan.facts()
    assert (fact.name, fact.mode, fact.dtype) == ("a name", "input", "float16")
    assert fact.ranges == ((1,), (2,), (3,))
    plan.set_address("x", 256)
    plan.set_shape("x", (2, 3))
    assert plan.shape_of("y") == (1,)
    with pytest.raises(EngineFault, match="not bound: a name"):
        plan.check_complete()
    plan.enqueue()
    trt.answers["EngineInspector.get_engine_information"] = '{"Layers": [{"Name": "attention"}]}'
    assert plan.layers() == [{"Name": "attention"}]
    assert trt.met - {"DataType.HALF"} == RUN
    assert trt.int32 is not None and set(TRT_DTYPES) <= set(trt.classes["DataType"]["members"])


@pytest.mark.parametrize(
    "use",
    [
        lambda trt, builder, config: trt.init_everything(),
        lambda trt, builder, config: builder.create_everything(),
        lambda trt, builder, config: builder.create_network(0, 1),
        lambda trt, builder, config: builder.create_network(flag=0),
        lambda trt, builder, config: builder.create_network("0"),
        lambda trt, builder, config: trt.Builder(),
        lambda trt, builder, config: builder.build_serialized_network(config, config),
        lambda trt, builder, config: config.set_memory_pool_limit("workspace", 1),
        lambda trt, builder, config: config.set_timing_cache(config.create_timing_cache("text"), False),
        lambda trt, builder, config: trt.MemoryPoolType.HEAP,
    ],
)
def test_a_wrong_use_is_found(trt, use):
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    config = builder.create_builder_config()
    with pytest.raises((AttributeError, TypeError)):
        use(trt, builder, config)


DOUBLED = {  # what executes in other tests in the place of TensorRT
    "ICudaEngine": (tensorrt_double.Engine, plan_double.Engine),
    "IExecutionContext": (tensorrt_double.Context, plan_double.Context),
    "IBuilderConfig": (plan_double.Config,),
    "Builder": (plan_double.Builder,),
    "OnnxParser": (plan_double.OnnxParser,),
    "Runtime": (tensorrt_double.Runtime, plan_double.Runtime),
}
OWN = {"device", "compute", "shape_changes", "configs"}  # of the doubles themselves


def test_doubles_offer_nothing_else(trt):
    """And take as many arguments as the real ones."""
    met = 0
    for kind, doubles in DOUBLED.items():
        for name, member in ((n, m) for double in doubles for n, m in vars(double).items()):
            if name.startswith("_") or name in OWN:
                continue
            met += 1
            if not inspect.isfunction(member):
                assert name in trt.classes[kind]["properties"], f"{kind}.{name}"
                continue
            ours = len(inspect.signature(member).parameters) - 1
            overloads = [one["arguments"] for one in trt.classes[kind]["methods"][name]]
            assert any(sum(must for _, _, must in one) <= ours <= len(one) for one in overloads), f"{kind}.{name}"
    assert met >= 25


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def test_no_other_file_uses_the_libraries():
    """So what is checked here and in the builder's tests is all there is."""
    folders = ("runtime", "builders", "kernels", "client", "scripts", "benchmarks", "model_repository")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {
        str(path.relative_to(ROOT))
        for path in files
        for name in imports(path)
        if name.split(".")[0] in ("tensorrt", "tensorrt_llm")
    }
    assert found == CALLERS
