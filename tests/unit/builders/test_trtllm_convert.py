"""The converter: names and fields of the format, memory, and what happens to bad or interrupted input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open

from builders.tensorrt.convert import convert
from builders.tensorrt.convert_config import MATCHING_FIELD, checkpoint_config
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from builders.tensorrt.tensor_file import TensorFile
from builders.tiny_chat import write_tiny_chat
from runtime.checkpoint.weights import INDEX_FILE, SINGLE_FILE
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig

FORMAT = json.loads((Path(__file__).parents[2] / "contracts" / "tensorrt_llm_1_2_1.json").read_text())["checkpoint"]
PLANS = {"backbone": backbone_plan, "srh": speech_plan}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny_chat(directory)
    return ModelConfig.read(directory)


def contract_names(layers):
    """Names of our class from the recorded table, with their sources below the Hugging Face prefix."""
    names = {}
    for entry in FORMAT["weights"]:
        if entry["own_class"] is None:
            continue
        parts = re.search(r"\{([a-z],[a-z,]+)\}", entry["hf"])
        sources = [entry["hf"].replace(parts[0], part) for part in parts[1].split(",")] if parts else [entry["hf"]]
        for i in range(layers if "{N}" in entry["own_class"] else 1):
            names[entry["own_class"].replace("{N}", str(i))] = [s.replace("{N}", str(i)) for s in sources]
    return names


def test_backbone_names_and_sources_are_the_recorded_ones(tiny):
    found = {t.name: [s.removeprefix("language_model.") for s in t.sources] for t in backbone_plan(tiny).targets}
    assert found == contract_names(tiny.backbone.num_layers)


def test_speech_names_and_sources_are_the_recorded_ones(tiny):
    expected = contract_names(tiny.speech_head.num_layers)
    expected["lm_head.weight"] = ["audio_tower.embed_tokens.weight"]  # tied, saved once under this name
    expected["output_matching.weight"] = ["audio_invert_tower.output_matching.weight"]
    stack = "audio_invert_tower.crq_transformer."
    found = {t.name: [s.replace(stack, "model.") for s in t.sources] for t in speech_plan(tiny).targets}
    assert found == expected


POSITIONS = 3000  # of the longest sequence


@pytest.mark.parametrize("part", PLANS)
@pytest.mark.parametrize("precision", ["bf16", "w8a16"])
def test_config_has_all_recorded_fields_and_values(tiny, part, precision):
    plan = PLANS[part](tiny)
    config = checkpoint_config(plan, Precision.named(precision), POSITIONS)
    assert sorted(config) == sorted([*FORMAT["config_fields"], MATCHING_FIELD])
    required = {k: v for k, v in FORMAT["required_values"].items() if k not in ("max_position_embeddings", "head_size")}
    assert {name: config[name] for name in required} == required
    # The trap of this field is its default, which is another number in both engines of this checkpoint.
    assert config["head_size"] == plan.decoder.head_dim != config["hidden_size"] // config["num_attention_heads"]
    # The rope table is of the engine, not of the checkpoint, whose own limit it never exceeds.
    assert config["max_position_embeddings"] == config["seq_length"] == 3072
    assert checkpoint_config(plan, Precision.named(precision), 10**6)["seq_length"] == plan.decoder.max_positions
    assert config[MATCHING_FIELD] == (tiny.backbone.hidden_size if part == "srh" else 0)
    assert json.loads(json.dumps(config)) == config


def test_files_shapes_and_values(tiny, tmp_path):
    plan = speech_plan(tiny)
    seen = []
    files = convert(tiny.directory, plan, Precision.named("bf16"), POSITIONS, tmp_path / "srh", seen.append)
    assert (
        sorted(path.name for path in files)
        == sorted(FORMAT["files"])
        == sorted(p.name for p in files[0].parent.iterdir())
    )
    with safe_open(str(files[1]), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    tensors = load_file(files[1])
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {t.name: t.shape for t in plan.targets}
    assert sum(seen) == sum(t.nbytes for t in tensors.values()) and len(seen) == len(tensors)
    codebook = load_file(next(p for p in sorted(tiny.directory.glob("*.safetensors"))))[
        "audio_tower.embed_tokens.weight"
    ]
    assert torch.equal(tensors["lm_head.weight"], codebook.bfloat16())


def test_rows_are_read_in_blocks(tiny, tmp_path, monkeypatch):
    whole, blocks = (tmp_path / name for name in ("whole", "blocks"))
    convert(tiny.directory, backbone_plan(tiny), Precision.named("bf16"), POSITIONS, whole)
    monkeypatch.setattr("builders.tensorrt.convert.BLOCK_BYTES", 1000)  # 7 rows of 64: no divisor of any height
    convert(tiny.directory, backbone_plan(tiny), Precision.named("bf16"), POSITIONS, blocks)
    assert (whole / "rank0.safetensors").read_bytes() == (blocks / "rank0.safetensors").read_bytes()


def test_a_missing_tensor_is_named_before_anything_is_written(tiny, tmp_path):
    write_tiny_chat(tmp_path / "source")
    index = json.loads((tmp_path / "source" / INDEX_FILE).read_text())
    index["weight_map"] = {k: "model-00001-of-00002.safetensors" for k in index["weight_map"]}
    (tmp_path / "source" / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(BuildError, match=r"expected shape \[.*found no such tensor"):
        convert(tmp_path / "source", backbone_plan(tiny), Precision.named("bf16"), POSITIONS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_conversion_leaves_no_weights_behind(tiny, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny.directory, backbone_plan(tiny), Precision.named("bf16"), POSITIONS, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_the_writer_refuses_what_it_did_not_announce(tmp_path):
    ones = torch.ones(2, 3)
    for shapes, name, block in (
        ({"a": (2, 3)}, "b", ones),
        ({"a": (3, 3)}, "a", ones),
        ({"a": (2, 3)}, "a", ones.half()),
    ):
        with pytest.raises(AssertionError), TensorFile(tmp_path / "x", shapes, torch.float32) as file:
            file.write(name, [block])
    shapes = {"a": (2, 3), "b": (1,)}
    with pytest.raises(AssertionError, match="b was never"), TensorFile(tmp_path / "x", shapes, torch.float32) as file:
        file.write("a", [ones])
    assert not list(tmp_path.iterdir())


def test_unknown_precision_names_the_known_ones():
    with pytest.raises(BuildError, match=r"'fp8' is unknown; use one of bf16, w8a16$"):
        Precision.named("fp8")


MEASURE = """
import sys
from pathlib import Path
from builders.tensorrt.convert import convert
from builders.tensorrt.convert_plan import backbone_plan
from builders.tensorrt.precision import Precision
from runtime.families.fun_audio_chat.config import (ModelConfig)

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

small, large, out = map(Path, sys.argv[1:])
config = ModelConfig.read(small)
convert(small, backbone_plan(config), Precision.named("bf16"), 4096, out / "small")
before = peak()
config = ModelConfig.read(large)
convert(large, backbone_plan(config), Precision.named("bf16"), 4096, out / "large")
print(peak() - before)
"""
SHARDS = 8


def write_large(directory):
    """A checkpoint of about 300 MB in many shards; returns bytes in all and of the largest tensor."""
    write_tiny_chat(directory)
    for path in directory.glob("*.safetensors"):
        path.unlink()
    config = json.loads((directory / "config.json").read_text())
    config["text_config"].update(hidden_size=512, intermediate_size=4096, num_hidden_layers=12, vocab_size=8192)
    (directory / "config.json").write_text(json.dumps(config))
    shapes = backbone_plan(ModelConfig.read(directory)).source_shapes
    names, weight_map = list(shapes), {}
    for i in range(SHARDS):
        part = {name: shapes[name] for name in names[i::SHARDS]}  # neighbours lie in different shards
        weight_map |= dict.fromkeys(part, f"{i}.safetensors")
        with TensorFile(directory / f"{i}.safetensors", part, torch.float32) as file:
            for name, shape in part.items():
                file.write(name, [torch.ones(shape)])
    (directory / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    sizes = [4 * torch.Size(shape).numel() for shape in shapes.values()]
    return sum(sizes), max(sizes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_near_the_largest_tensor(tiny, tmp_path):
    total, largest = write_large(tmp_path / "large")
    assert not (tmp_path / "large" / SINGLE_FILE).exists() and total > 15 * largest
    command = [sys.executable, "-c", MEASURE, str(tiny.directory), str(tmp_path / "large"), str(tmp_path / "out")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    print(f"{total / 1e6:.0f} MB converted, largest tensor {largest / 1e6:.0f} MB, peak grew by {grown / 1e6:.0f} MB")
    assert grown < 3 * largest
