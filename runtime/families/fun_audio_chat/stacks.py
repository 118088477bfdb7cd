"""Both stacks of kernels from the weights of a checkpoint, and the state of their slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

import torch

from kernels.choice import Draws
from kernels.linear import Dense
from kernels.ops import Ops
from kernels.quantised import knows_fp8, matrix_maker
from runtime.engines.kernel_stack import DecoderStack, MakeMatrix
from runtime.engines.options import FP8, EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.decisions import frame_tables
from runtime.families.fun_audio_chat.state import SlotState, StateSizes
from runtime.families.fun_audio_chat.steps import FrameSteps, FrameWeights, StackTables
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK, SPEECH_STACK
from runtime.graphs.device import give_back

LAYERS = ".layers."  # in the names of what only the stacks need
SPARE_BLOCKS = 1  # of each pool: where padding rows write
Weights = dict[str, torch.Tensor]


class ConsumedWeights(Mapping[str, torch.Tensor]):
    """Pops the tensors of layers as they are read: a stack keeps them fused, and the GPU holds no second copy."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._weights.pop(name) if LAYERS in name else self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def frame_weights(weights: Weights, matrix: MakeMatrix) -> FrameWeights:
    """Tables stay as they are; matrices are made by ``matrix``."""
    tables = frame_tables(weights, matrix)
    return FrameWeights(
        **{field.name: getattr(tables, field.name) for field in fields(tables)},
        text_head=matrix(weights["language_model.lm_head.weight"]),
        speech_head=(matrix(weights["audio_invert_tower.output_matching.weight"]), matrix(tables.codebook)),
    )


def state_sizes(config: ModelConfig, streams: int) -> StateSizes:
    """Of the state of so many streams."""
    return StateSizes(
        slots=streams,
        hidden=config.backbone.hidden_size,
        vocabulary=config.backbone.output_size,
        text_ids=config.text_ids,
        speech_ids=config.speech_ids,
    )


def build_steps(
    config: ModelConfig,
    options: EngineOptions,
    weights: Weights,
    ops: Ops,
    matrix: MakeMatrix = Dense,
    draws: Draws | None = None,
) -> FrameSteps:
    """Both stacks and the state of their slots over weights that lie on the device; takes the layers' out of them."""

    def stack(decoder: str, prefix: str, positions: int) -> StackTables:
        sizes = getattr(config, decoder)
        shape = engine_shape(sizes, options, positions)
        made = DecoderStack(sizes, shape, ConsumedWeights(weights), prefix, ops, matrix, SPARE_BLOCKS, options.fused)
        return StackTables.of(made, options.max_streams)

    state = SlotState(state_sizes(config, options.max_streams), weights[CODEBOOK], draws)
    backbone = stack("backbone", BACKBONE, 1)
    speech = stack("speech_head", SPEECH_STACK, config.speech_ids.group_size)
    steps = FrameSteps(backbone, speech, frame_weights(weights, matrix), state, ops)
    give_back(state.hidden.device)
    return steps


def matrix_for(linear: str, device: torch.device) -> MakeMatrix:
    """Makes the stacks' matrices as the option ``linear`` says, multiplied by what the device runs best.

    Raises:
        BuildError: the device does not know the numbers.
    """
    if device.type != "cuda":
        return matrix_maker(linear)
    if linear == FP8 and not knows_fp8(device):
        found = torch.cuda.get_device_capability(device)
        problem = f"is {FP8}, which this GPU of compute capability {found[0]}.{found[1]} has no numbers for"
        raise BuildError("engine.linear", problem, "use int8 or dense")
    from kernels.gpu.quantised import scaled_product

    return matrix_maker(linear, scaled_product)
