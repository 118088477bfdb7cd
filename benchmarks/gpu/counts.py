"""What steps and prompts must read and compute at least, counted over the matrices that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.engines.kernel_stack import StackLayer
from runtime.families.fun_audio_chat.steps import FrameSteps, StackTables

OPERATIONS = 2  # of a number of a matrix and a row: multiply and add
PRODUCTS = 2  # of attention: with keys, and with values


class Counts:
    """Of both stacks. ``group``: codes of a frame."""

    def __init__(self, steps: FrameSteps, group: int) -> None:
        self._steps, self._group = steps, group

    def backbone_bytes(self, rows: int, context: float) -> int:
        """What a backbone step reads at least: its matrices, the head, the cached positions of every row."""
        w, stack = self._steps.weights, self._steps.backbone_stack
        return _stack_bytes(stack) + _bytes(w.text_head, w.feedback) + _cached(stack, rows, context)

    def speech_bytes(self, rows: int, context: float) -> int:
        """What a group reads at least: five times the speech head and its projections, the spread once."""
        w, stack, group = self._steps.weights, self._steps.speech_stack, self._group
        cached = _cached(stack, rows, group * context)
        return group * (_stack_bytes(stack) + _bytes(w.narrow, *w.speech_head) + cached) + _bytes(w.spread)

    def prefill_bytes(self) -> int:
        """What a prompt reads at least: the matrices of both stacks."""
        return _stack_bytes(self._steps.backbone_stack) + _stack_bytes(self._steps.speech_stack)

    def prefill_flops(self, positions: int) -> int:
        """Of a prompt from its begin; of the speech head's last layer only keys and values are needed."""
        w, spoken = self._steps.weights, self._group * positions
        backbone, speech = self._steps.backbone_stack, self._steps.speech_stack
        layers = [*speech.stack.layers[:-1]]
        between = positions * _numbers(w.spread) + spoken * _numbers(w.narrow, speech.stack.layers[-1].qkv)
        return (
            OPERATIONS * (positions * _layer_numbers(backbone.stack.layers) + spoken * _layer_numbers(layers) + between)
            + _attention_flops(backbone, positions, len(backbone.stack.layers))
            + _attention_flops(speech, spoken, len(layers))
        )


def _attention_flops(stack: StackTables, positions: int, layers: int) -> int:
    """Every position looks at itself and at those before it."""
    config, pairs = stack.stack.config, positions * (positions + 1) // 2
    return OPERATIONS * PRODUCTS * pairs * config.num_heads * config.head_dim * layers


def _cached(stack: StackTables, rows: int, positions: float) -> int:
    shape = stack.stack.shape
    line = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * stack.stack.memory.element_size()
    return round(rows * positions) * line


def _bytes(*matrices: object) -> int:
    return sum(int(getattr(matrix, "nbytes", 0)) for matrix in matrices)


def _stack_bytes(stack: StackTables) -> int:
    return sum(_bytes(layer.qkv, layer.out, layer.gate_up, layer.down) for layer in stack.stack.layers)


def _numbers(*matrices: Any) -> int:
    return sum(int(matrix.weight.numel()) for matrix in matrices)


def _layer_numbers(layers: Sequence[StackLayer]) -> int:
    return sum(_numbers(layer.qkv, layer.out, layer.gate_up, layer.down) for layer in layers)
