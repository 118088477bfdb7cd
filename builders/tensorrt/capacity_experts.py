"""Memory of a backbone with experts: all weights are resident, a step reads those of the experts that its rows take.

    experts of a layer that a step of B streams reads = experts x (1 - (1 - taken / experts) ^ B)

if every expert is as likely as any other, which a trained router is not: it reads fewer. Computed from the shapes,
measured nowhere. Heads and router are counted in the model's type whatever the precision of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from builders.tensorrt.capacity import GIB, SCALE_BYTES
from builders.tensorrt.precision import Precision
from runtime.checkpoint.experts import ExpertSizes
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import BACKBONE, Shapes, backbone_shapes, speech_shapes

PRECISIONS = {"bf16": "bf16", "int8": "w8a16"}  # of the layers, as operators call them
STREAMS = (1, 4, 8, 16, 32, 64)
ROUTER, EXPERT = ".mlp.gate.weight", ".mlp.experts."
EMBEDDING = f"{BACKBONE}embed_tokens.weight"


def experts_read(sizes: ExpertSizes, streams: int) -> float:
    """Experts of a layer that a step of so many streams takes, on the average."""
    return sizes.count * (1 - (1 - sizes.taken / sizes.count) ** streams)


def resident_bytes(config: ModelConfig, precision: Precision) -> int:
    """Backbone and speech head with their tables."""
    return _bytes(backbone_shapes(config) | speech_shapes(config), precision)


def step_bytes(config: ModelConfig, precision: Precision, streams: int) -> int:
    """What one backbone step of so many streams reads of the weights, on the average; no cache."""
    sizes, shapes = config.backbone.experts, backbone_shapes(config)
    assert sizes is not None
    experts = {name: shape for name, shape in shapes.items() if EXPERT in name}
    others = {name: shape for name, shape in shapes.items() if name not in experts and name != EMBEDDING}
    share = experts_read(sizes, streams) / sizes.count
    return _bytes(others, precision) + round(share * _bytes(experts, precision))


def expert_lines(config: ModelConfig) -> Iterator[str]:
    """Lines for the operator of a build; none without experts."""
    sizes = config.backbone.experts
    if sizes is None:
        return
    for label, precision in ((label, Precision.named(name)) for label, name in PRECISIONS.items()):
        resident = resident_bytes(config, precision) / GIB
        steps = ", ".join(f"{n}: {step_bytes(config, precision, n) / GIB:.1f}" for n in STREAMS)
        yield (
            f"note: {sizes.taken} of {sizes.count} experts a row, {label}: {resident:.1f} GiB of language "
            f"weights stay in memory; GiB that a step reads of them, by streams, if all experts are as likely: {steps}"
        )


def _bytes(shapes: Shapes, precision: Precision) -> int:
    dtype = precision.torch_dtype.itemsize
    total = 0
    for name, shape in shapes.items():
        is_matrix = ".layers." in name and len(shape) > 1 and not name.endswith(ROUTER)
        scales = SCALE_BYTES * shape[0] if is_matrix and precision.quant_algo else 0
        total += math.prod(shape) * (precision.layer_bytes if is_matrix else dtype) + scales
    return total
