"""Every use of tensorrt and tensorrt_llm in our source is recorded; what is not recorded is found."""

import json
import re
import textwrap
from pathlib import Path

import pytest
import recorded
from source_checker import check_sources, check_tree

ROOT = Path(__file__).parents[2]
FOLDERS = ["runtime", "builders", "kernels", "client", "scripts", "model_repository"]


@pytest.fixture(scope="module")
def report():
    return check_tree(ROOT, FOLDERS, recorded.load())


def test_every_use_is_recorded(report):
    assert not report.problems, "\n".join(map(str, report.problems))


def test_the_uses_are_really_found(report):
    """The checker sees our builder and our runtime: an empty report would be no proof."""
    met = {use.text for use in report.uses}
    assert {
        "tensorrt_llm.builder.build",
        "tensorrt_llm.builder.BuildConfig",
        "tensorrt_llm.builder.Engine.save",
        "tensorrt_llm.layers.Attention",
        "tensorrt_llm.layers.Attention.forward",
        "tensorrt_llm.layers.GatedMLP.forward",
        "tensorrt_llm.functional.Tensor",
        "tensorrt_llm.functional.Tensor.__add__",
        "tensorrt_llm.functional.Tensor.mark_output",
        "tensorrt_llm.models.modeling_utils.PretrainedModel.from_checkpoint",
        "tensorrt_llm.models.generation_mixin.GenerationMixin.prepare_attention_inputs",
        "tensorrt_llm.plugin.PluginConfig.tokens_per_block",
        "tensorrt.int32",
        "tensorrt.ICudaEngine.get_tensor_name",
        "tensorrt.IExecutionContext.set_tensor_address",
        "tensorrt.IExecutionContext.execute_async_v3",
    } <= met
    print(f"{len(met)} recorded names in {len({use.file for use in report.uses})} files")


def test_what_we_use_of_tensorrt_is_in_10_14_and_11(report):
    calls = recorded.load().raw["tensorrt_python_calls"]
    versions = {"tensorrt." + re.match(r"(tensorrt\.)?([\w.]+)", c["call"])[2]: set(c["present_in"]) for c in calls}
    used = {use.text for use in report.uses} & set(versions)
    assert len(used) > 10 and all({"10.14", "11.1"} <= versions[name] for name in used)
    removed = {"tensorrt." + text.split(" ")[0] for text in recorded.load().raw["removed_in_tensorrt_11"]}
    assert not removed & {use.text for use in report.uses} - used


def test_additions_add_and_say_where_they_are_from():
    first, *additions = [json.loads((Path(recorded.__file__).parent / name).read_text()) for name in recorded.FILES]
    known = {entry["import"] for entry in first["symbols"]}
    for entry in (entry for values in additions for entry in values["symbols"]):
        assert entry["import"] not in known, f"{entry['import']} is recorded already"
        assert {"signature", "certainty", "source"} <= set(entry)


def problems(source, **others):
    sources = {"runtime/example.py": textwrap.dedent(source)} | {k: textwrap.dedent(v) for k, v in others.items()}
    return [finding.text for finding in check_sources(sources, recorded.load()).problems]


GOOD = """
import tensorrt as trt
from tensorrt_llm.layers import GatedMLP, RmsNorm

def build(logger: trt.Logger) -> None:
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    plan = builder.build_serialized_network(network, config)
    RmsNorm(normalized_shape=8, eps=1e-6)
"""


def test_recorded_calls_pass():
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("trt.init_everything(logger)", "tensorrt.init_everything is not recorded"),
        ("builder.create_everything()", "tensorrt.Builder.create_everything is not recorded"),
        ("builder.create_network(0, 1)", "2 positional arguments, 1 are recorded"),
        ("builder.create_network(flags=0)", "keyword 'flags' is not recorded"),
        ("network.add_input('a', trt.int32, (1,))", ".add_input of what tensorrt.Builder.create_network gives"),
        ("trt.BuilderFlag.FP16", "tensorrt.BuilderFlag.FP16 is not recorded"),
        ("plan.size", ".size of what tensorrt.Builder.build_serialized_network gives"),
        ("RmsNorm(8, epsilon=1e-6)", "keyword 'epsilon' is not recorded"),
        ("RmsNorm(eps=1e-6)", "'normalized_shape' is missing"),
        ("RmsNorm(8, normalized_shape=8)", "'normalized_shape' is given twice"),
        ("RmsNorm(**{'normalized_shape': 8})", "unpacked arguments cannot be checked"),
        ("RmsNorm(8)(network, network)", "2 positional arguments, 1 are recorded"),
        ("getattr(builder, 'x' + 'y')()", "getattr on a library object"),
        ("import tensorrt_llm.runtime", "module tensorrt_llm.runtime is not recorded"),
        ("from tensorrt_llm.layers import Conv2d", "tensorrt_llm.layers.Conv2d is not recorded"),
        ("[builder.x for _ in range(3)]", "tensorrt.Builder.x is not recorded"),
        ("assert builder.platform_has_fast_fp16, 'old'", "platform_has_fast_fp16 is not recorded"),
    ],
)
def test_a_new_use_without_a_record_fails(line, problem):
    found = problems(GOOD + f"    {line}\n")
    assert len(found) == 1 and problem in found[0], found


def test_attributes_of_self_and_modules_handed_in_are_followed():
    source = """
    class Plan:
        def __init__(self, trt, plan):
            self._trt = trt
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            self._engine = self._runtime.deserialize_cuda_engine(plan)

        def names(self):
            engine = self._engine
            return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]

        def dtype(self, name):
            return self._engine.get_tensor_dtype(name).name
    """
    assert problems(source) == []
    assert problems(source.replace("get_tensor_name", "get_binding_name")) == [
        "tensorrt.ICudaEngine.get_binding_name is not recorded"
    ]
    assert problems(source.replace("trt.Runtime", "trt.Session")) == ["tensorrt.Session is not recorded"]
    assert problems(source.replace(").name", ").itemsize")) == ["tensorrt.DataType.itemsize is not recorded"]


def test_inherited_members_are_followed_through_files():
    model = """
    from tensorrt_llm.models.modeling_utils import PretrainedModel
    from tensorrt_llm.models.qwen.config import QWenConfig

    class Model(PretrainedModel):
        def __init__(self, config: QWenConfig):
            super().__init__(config)
            self.size = config.hidden_size

        def prepare(self):
            return self.prepare_attention_inputs(max_batch_size=self.size)
    """
    user = """
    from builders.model import Model

    model = Model.from_checkpoint("folder", rank=0)
    """
    found = problems(user, **{"builders/model.py": model})
    assert "prepare_attention_inputs: 'head_size' is missing" in found[0] and len(found) == 8
    model = model.replace("self.prepare_attention_inputs(max_batch_size=self.size)", "self.config.dtype")
    assert problems(user, **{"builders/model.py": model}) == []
    assert "super().__init__()" not in model
    broken = model.replace("super().__init__(config)", "super().__init__()")
    assert problems(user, **{"builders/model.py": broken}) == [
        "tensorrt_llm.models.modeling_utils.PretrainedModel: 'config' is missing"
    ]
    assert problems(user.replace("rank=0", "rang=0"), **{"builders/model.py": model}) == [
        "tensorrt_llm.models.modeling_utils.PretrainedModel.from_checkpoint: keyword 'rang' is not recorded"
    ]
    assert problems(user, **{"builders/model.py": model.replace("config.hidden_size", "config.n_embd")}) == [
        "tensorrt_llm.models.qwen.config.QWenConfig.n_embd is not recorded"
    ]
