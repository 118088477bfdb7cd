"""Division of a GPU's memory against the published sizes of the released model, and the checks before a build."""

import dataclasses
import re

import pytest

from builders.tensorrt.capacity import (
    GIB,
    ONE_GPU,
    TOKEN2WAV_APART,
    WORKSPACE,
    Reserve,
    capacity_lines,
    checkpoint_bytes,
    divide_memory,
    engine_bytes,
    kv_bytes,
)
from builders.tensorrt.convert import convert
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from builders.tensorrt.preflight import SPARE_DISK, Needs, available_memory, check_room
from builders.tensorrt.profiles import PROFILES
from builders.tiny_chat import write_tiny_chat
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig

H100 = 81559 << 20  # what the driver reports for 80 GB
BF16, W8A16 = Precision.named("bf16"), Precision.named("w8a16")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny_chat(directory)
    return ModelConfig.read(directory)


@pytest.fixture(scope="module")
def released(tiny):
    """The released sizes (reference, section 1)."""
    backbone = dataclasses.replace(
        tiny.backbone,
        hidden_size=4096,
        num_layers=36,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=12288,
        output_size=151936,
    )
    speech = dataclasses.replace(
        tiny.speech_head,
        hidden_size=1024,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=3072,
    )
    encoder = dataclasses.replace(tiny.encoder, output_dim=4096)
    return dataclasses.replace(tiny, backbone=backbone, speech_head=speech, encoder=encoder)


def test_bytes_of_a_position_are_the_references(released):
    assert kv_bytes(released.backbone, BF16) == 147_456
    assert kv_bytes(released.speech_head, BF16) * released.speech_ids.group_size == 573_440


def test_bytes_of_weights(released):
    """8190.7 M parameters without the 622.3 M of the embedding; a weight-only byte saves one per layer weight."""
    plan = backbone_plan(released)
    assert engine_bytes(plan, BF16) == checkpoint_bytes(plan, BF16) == pytest.approx(2 * (8190.7e6 - 622.3e6), rel=1e-4)
    layers = 36 * (4096 * 128 * (32 + 16) + 4096 * 4096 + 3 * 4096 * 12288)
    scales = 36 * 2 * (128 * (32 + 16) + 4096 + 2 * 12288 + 4096)
    assert engine_bytes(plan, BF16) - engine_bytes(plan, W8A16) == layers - scales
    assert checkpoint_bytes(plan, W8A16) == checkpoint_bytes(plan, BF16)


def test_converted_files_have_the_computed_size(tiny, tmp_path):
    for plan in (backbone_plan(tiny), speech_plan(tiny)):
        _, weights = convert(tiny.directory, plan, BF16, 4096, tmp_path / plan.name)
        header = int.from_bytes(weights.read_bytes()[:8], "little") + 8
        assert weights.stat().st_size - header == checkpoint_bytes(plan, BF16)


@pytest.mark.parametrize("name", list(PROFILES))
@pytest.mark.parametrize("reserve", [ONE_GPU, TOKEN2WAV_APART])
def test_nothing_is_given_twice_and_little_is_left(released, name, reserve):
    profile = PROFILES[name]
    capacity = divide_memory(released, profile, reserve, H100)
    used = capacity.weights + capacity.tables + capacity.reserve + capacity.backbone_kv + capacity.speech_kv
    per_block = 720_896 * profile.tokens_per_block
    assert 0 <= 0.95 * H100 - used < per_block
    assert capacity.reserve == reserve.fixed + profile.max_streams * reserve.per_stream + WORKSPACE
    assert capacity.backbone_kv == capacity.positions * 147_456
    assert capacity.speech_kv == capacity.positions * 573_440
    # Pools are made of whole blocks, in both engines alike.
    assert capacity.positions % profile.tokens_per_block == 0


def test_known_capacity(released):
    """The reference estimates 76,000 positions for 55 GB of cache; the numbers that the README quotes."""
    capacity = divide_memory(released, PROFILES["h100-bf16"], TOKEN2WAV_APART, H100)
    assert capacity.positions == 76_320
    assert (capacity.streams(1024, 96), capacity.streams(2048, 96), capacity.streams(256, 96)) == (74, 37, 96)
    smaller = divide_memory(released, PROFILES["h100-bf16"], ONE_GPU, H100).positions
    assert (
        smaller < capacity.positions < divide_memory(released, PROFILES["h100-w8a16"], TOKEN2WAV_APART, H100).positions
    )


def test_the_table_prints_streams_by_context(released):
    profile = PROFILES["a100-bf16"]
    lines = capacity_lines(profile, "A GPU", divide_memory(released, profile, TOKEN2WAV_APART, H100))
    assert lines[0] == "a100-bf16 on A GPU (computed from the shapes, not measured):"
    rows = [re.findall(r"[\d.]+", line)[:3] for line in lines if re.match(r"\s+\d+\s+\d+\.\d\s", line)]
    assert rows == [
        ["256", "0.9", "32"],
        ["512", "1.7", "32"],
        ["1024", "3.4", "32"],
        ["2048", "6.8", "32"],
        ["4096", "13.7", "18"],
    ]
    assert "most of this profile" in lines[-2] and "most of this profile" not in lines[-1]


def test_a_gpu_that_is_too_small_is_refused_with_the_remedy(released):
    with pytest.raises(BuildError, match=r"GPU memory: 24\.0 GiB hold 0 positions .* w8a16 profile, put token2wav"):
        divide_memory(released, PROFILES["a100-bf16"], ONE_GPU, 24 * GIB)


def test_a_negative_reserve_is_refused():
    with pytest.raises(ValueError, match="-1"):
        Reserve(-1, 0)


@pytest.mark.parametrize(
    ("gpu", "host", "message"),
    [
        (100 * GIB, 3 * GIB, r"host memory: 7\.0 GiB are needed to build, 3\.0 are free; close other programs"),
        (1 * GIB, 100 * GIB, r"GPU memory: 5\.0 GiB are needed to build, 1\.0 are free; stop what else"),
    ],
)
def test_short_memory_is_named(tmp_path, monkeypatch, gpu, host, message):
    monkeypatch.setattr("builders.tensorrt.preflight.SPARE_DISK", 0)
    with pytest.raises(BuildError, match=message):
        check_room(tmp_path, Needs({tmp_path / "engine": 1}, largest=GIB), gpu, host)


def test_short_disk_is_named_and_what_is_there_counts(tmp_path, monkeypatch):
    class Usage:
        free = SPARE_DISK + 10

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage if path == tmp_path else None)
    out = tmp_path / "not" / "made"
    needs = Needs({out / "a": 6, out / "b": 5}, largest=1)
    with pytest.raises(BuildError, match=r"disk: 9\.0 GiB are needed under .*choose another OUT or free space"):
        check_room(out, needs, 100 * GIB, 100 * GIB)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    out.mkdir(parents=True)
    (out / "a").write_bytes(b"12345")
    check_room(out, needs, 100 * GIB, 100 * GIB)
    (out / "a").write_bytes(b"123456")
    (out / "b").write_bytes(b"12345")
    check_room(out, needs, 0, 0)  # complete: nothing will be built


def test_the_containers_memory_limit_counts(tmp_path, monkeypatch):
    limit, used, info = (tmp_path / name for name in ("max", "current", "meminfo"))
    info.write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    limit.write_text("max\n")
    used.write_text("1000000\n")
    for name, path in (("MEMINFO", info), ("CGROUP_LIMIT", limit), ("CGROUP_USED", used)):
        monkeypatch.setattr(f"builders.tensorrt.preflight.{name}", path)
    assert available_memory() == 2048 * 1024
    limit.write_text("1500000\n")
    assert available_memory() == 500_000
