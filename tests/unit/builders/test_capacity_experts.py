"""Memory of a backbone with experts at the released sizes, and what target ``tensorrt`` says to one."""

from dataclasses import replace

import pytest

from benchmarks.gpu.expert_checks import A3B, A3B_HIDDEN
from builders.opening import open_inputs
from builders.released import full
from builders.tensorrt.capacity import kv_bytes
from builders.tensorrt.capacity_experts import expert_lines, experts_read, resident_bytes, step_bytes
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from builders.tiny_chat import TINY_EXPERTS, write_tiny_chat
from builders.tiny_cosyvoice import write_tiny_cosyvoice
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import backbone_shapes

BF16, W8A16 = Precision.named("bf16"), Precision.named("w8a16")


@pytest.fixture(scope="module")
def released():
    """Qwen3-30B-A3B beside the speech head of the 8B."""
    model = full().model
    backbone = replace(
        model.backbone, hidden_size=A3B_HIDDEN, num_layers=48, num_kv_heads=4, intermediate_size=6144, experts=A3B
    )
    return replace(model, backbone=backbone)


def test_bytes_of_a_position(released):
    assert kv_bytes(released.backbone, BF16) == 98_304


@pytest.mark.parametrize(("streams", "experts"), [(1, 8), (4, 29), (8, 52), (16, 82), (32, 112), (64, 126)])
def test_experts_that_a_step_reads(streams, experts):
    assert round(experts_read(A3B, streams)) == experts


def test_all_weights_are_resident_and_a_step_reads_a_part(released):
    parameters = sum(a * (b[0] if b else 1) for a, *b in backbone_shapes(released).values())
    assert parameters == pytest.approx(30.5e9, rel=2e-3)
    assert resident_bytes(released, BF16) - 2 * parameters == pytest.approx(2 * 0.483e9, rel=0.01), "the speech head"
    # 3.0 B parameters without the embedding, with its head.
    assert step_bytes(released, BF16, 1) == pytest.approx(2 * 3.04e9, rel=0.02)
    steps = [step_bytes(released, BF16, streams) for streams in (1, 4, 16, 64)]
    assert steps == sorted(steps) and steps[-1] < 2 * parameters
    assert step_bytes(released, W8A16, 16) < 0.52 * step_bytes(released, BF16, 16) + 2 * 151936 * A3B_HIDDEN


def test_a_step_of_all_experts_reads_all_but_the_embedding(released):
    everything = replace(A3B, taken=A3B.count)
    whole = replace(released, backbone=replace(released.backbone, experts=everything))
    parameters = sum(a * (b[0] if b else 1) for a, *b in backbone_shapes(whole).values())
    assert step_bytes(whole, BF16, 1) == 2 * (parameters - 151936 * A3B_HIDDEN)


def test_a_build_says_it(tmp_path):
    write_tiny_chat(tmp_path / "model", sizes=TINY_EXPERTS)
    write_tiny_cosyvoice(tmp_path / "cosyvoice")
    notes = open_inputs(tmp_path / "model", tmp_path / "cosyvoice", None).notes
    assert [note.split(":")[1].split(",")[1] for note in notes] == [" bf16", " int8"]
    assert notes[0].startswith("note: 3 of 6 experts a row, bf16: 0.0 GiB of language weights stay in memory")
    assert not list(expert_lines(full().model))


def test_tensorrt_names_the_target_that_has_experts(tmp_path, released):
    write_tiny_chat(tmp_path, sizes=TINY_EXPERTS)
    with pytest.raises(BuildError, match=r"text_config.num_experts: is 6: .*1\.2\.1 has no .*; use --target cuda"):
        backbone_plan(ModelConfig.read(tmp_path))
    assert speech_plan(released).targets, "the speech head has none"
