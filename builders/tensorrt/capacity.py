"""How a GPU's memory is divided, and how many streams of which length then fit.

    KV cache = 0.95 x memory - engine weights - tables in torch - other models - workspaces - streams x state
    bytes of a backbone position = 2 x layers x KV heads x head size x element        (backbone)
                         + group x 2 x layers x KV heads x head size x element        (speech head)

Both pools get room for the same number of backbone positions, so they fill up together; in bf16 the released
model's are 147,456 and 573,440 bytes. Nothing here was measured on a GPU yet: weights, tables and KV are exact
by the shapes, ``WORKSPACE`` and the reserve are estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from builders.tensorrt.convert_plan import CheckpointPlan, backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from builders.tensorrt.profiles import Profile
from runtime.checkpoint.decoder import DecoderConfig
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import all_shapes

GIB = 1 << 30
USABLE = 0.95  # the rest is lost to fragmentation and to what drivers keep
WORKSPACE = 4 * GIB  # activations and attention workspaces of both engines, a CUDA context of each process
SCALE_BYTES = 2  # of a weight-only matrix, one per output
KEY_AND_VALUE = 2
POSITIONS_PER_MINUTE = 5 * 60  # frames of 200 ms


@dataclass(frozen=True, slots=True)
class Reserve:
    """Memory for what is not a language engine: encoder, flow and vocoder, in bytes.

    ``per_stream`` is what each speaking stream holds there, above all the flow's cache.
    """

    fixed: int
    per_stream: int

    def __post_init__(self) -> None:
        if min(self.fixed, self.per_stream) < 0:
            raise ValueError(f"reserve: {self.fixed} and {self.per_stream} must not be negative")


# Estimates for the released sizes; a build knows the caches exactly (``sound``). The encoder is 2.5 GiB in float32,
# flow and vocoder are about 1 GiB, new keys and values of a flow call 0.5 GiB; the rest is their activations. The flow
# keeps 90 MB per second of attention window (ten Euler steps, guidance pair, 16 bit): three blocks of 1 s.
FLOW_CACHE_PER_SECOND, FLOW_WINDOW_S = 90_000_000, 3
ONE_GPU = Reserve(fixed=8 * GIB, per_stream=FLOW_CACHE_PER_SECOND * FLOW_WINDOW_S)
TOKEN2WAV_APART = Reserve(fixed=4 * GIB, per_stream=0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """One GPU divided. All in bytes but ``positions``, which are backbone positions of all streams together."""

    memory: int
    weights: int
    tables: int
    reserve: int
    backbone_kv: int
    speech_kv: int
    positions: int

    def streams(self, positions: int, limit: int) -> int:
        """Conversations of so many positions that fit at once."""
        return min(limit, self.positions // positions)


def divide_memory(config: ModelConfig, profile: Profile, reserve: Reserve, gpu_bytes: int) -> Capacity:
    """Divides the memory of one GPU.

    Raises:
        BuildError: not even one longest conversation fits.
    """
    precision = Precision.named(profile.precision)
    plans = backbone_plan(config), speech_plan(config)
    weights = sum(engine_bytes(plan, precision) for plan in plans)
    tables = table_bytes(config, plans, precision)
    reserved = reserve.fixed + profile.max_streams * reserve.per_stream + WORKSPACE
    per_backbone = kv_bytes(config.backbone, precision)
    per_speech = kv_bytes(config.speech_head, precision) * config.speech_ids.group_size
    free = int(USABLE * gpu_bytes) - weights - tables - reserved
    # Whole blocks of the backbone's pool, so that neither pool is rounded up beyond what is there.
    positions = free // (per_backbone + per_speech) // profile.tokens_per_block * profile.tokens_per_block
    if positions < profile.max_positions:
        raise BuildError(
            "GPU memory",
            f"{gpu_bytes / GIB:.1f} GiB hold {max(positions, 0)} positions of KV cache beside {weights / GIB:.1f} GiB "
            f"of weights and {(tables + reserved) / GIB:.1f} GiB of tables and reserve, one conversation needs "
            f"{profile.max_positions}",
            "use a w8a16 profile, put token2wav on a second GPU, or lower its window",
        )
    return Capacity(gpu_bytes, weights, tables, reserved, positions * per_backbone, positions * per_speech, positions)


def kv_bytes(decoder: DecoderConfig, precision: Precision) -> int:
    """Keys and values of one position in all layers; the cache has the model's dtype."""
    element = precision.torch_dtype.itemsize
    return KEY_AND_VALUE * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim * element


def checkpoint_bytes(plan: CheckpointPlan, precision: Precision) -> int:
    """Size of the converted tensors, which are never stored quantised."""
    return sum(math.prod(target.shape) for target in plan.targets) * precision.torch_dtype.itemsize


def engine_bytes(plan: CheckpointPlan, precision: Precision) -> int:
    """Weights inside the engine: matrices of layers as the precision keeps them, all else in the model's dtype."""
    total = 0
    for target in plan.targets:
        is_matrix = target.name.startswith("layers.") and len(target.shape) > 1
        element = precision.layer_bytes if is_matrix else precision.torch_dtype.itemsize
        scales = SCALE_BYTES * target.shape[0] if is_matrix and precision.quant_algo else 0
        total += math.prod(target.shape) * element + scales
    return total


def table_bytes(config: ModelConfig, plans: tuple[CheckpointPlan, ...], precision: Precision) -> int:
    """Language tensors that stay in torch: embeddings and what stands between the engines.

    The codebook counts twice: it is the speech head's last matrix and a table of its own.
    """
    compiled = {source for plan in plans for source in plan.source_shapes} - {"audio_tower.embed_tokens.weight"}
    ours = {
        name: shape
        for name, shape in all_shapes(config).items()
        if name not in compiled and not name.startswith("continuous_audio_tower.")
    }
    return sum(math.prod(shape) for shape in ours.values()) * precision.torch_dtype.itemsize


def capacity_lines(profile: Profile, gpu: str, capacity: Capacity) -> list[str]:
    """Lines to print; sizes in GiB, lengths in backbone positions and minutes of speech."""
    parts = [
        ("memory", capacity.memory),
        ("engine weights", capacity.weights),
        ("tables in torch", capacity.tables),
        ("other models, workspaces", capacity.reserve),
        ("KV cache, backbone", capacity.backbone_kv),
        ("KV cache, speech head", capacity.speech_kv),
    ]
    lines = [f"{profile.name} on {gpu} (computed from the shapes, not measured):"]
    lines += [f"  {name:<26}{size / GIB:>8.2f} GiB" for name, size in parts]
    lines.append(f"  {'positions of all streams':<26}{capacity.positions:>8}")
    lines.append(f"  {'context':>9}{'minutes':>10}{'streams':>10}")
    for positions in _contexts(profile.max_positions):
        streams = capacity.streams(positions, profile.max_streams)
        full = " (the most of this profile)" if streams == profile.max_streams else ""
        lines.append(f"  {positions:>9}{positions / POSITIONS_PER_MINUTE:>10.1f}{streams:>10}{full}")
    return lines


def _contexts(longest: int) -> list[int]:
    """The longest context and its halves, down to a sixteenth."""
    return [max(1, longest >> shift) for shift in (4, 3, 2, 1, 0)]
