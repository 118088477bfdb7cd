"""Two layers of each stack at the model's width, by kernels and by twins: what single kernels do not show together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.bed import TOKENS, Bed, Pairs
from kernels.linear import Dense, Matrix
from kernels.ops import Ops
from kernels.paged_rows import cut_tiles
from kernels.quantised import WeightOnly, knows_fp8, quantise, scaled_product
from runtime.checkpoint.decoder import DecoderConfig
from runtime.engines.base import EngineShape
from runtime.engines.kernel_stack import DecoderStack, MakeMatrix, Rows, StackLayer
from runtime.families.fun_audio_chat.tensors import decoder_shapes

STACKS = ("backbone", "speech_head")
LAYERS, PREFIX = 2, "stack."
POSITIONS = 128  # of a sequence
SPREAD = 37  # between the positions of two rows


def _weights(bed: Bed, config: DecoderConfig) -> dict[str, torch.Tensor]:
    def made(shape: tuple[int, ...]) -> torch.Tensor:
        return 1 + 0.1 * bed.rand(*shape) if len(shape) == 1 else bed.rand(*shape) / shape[1] ** 0.5

    return {name: made(shape) for name, shape in decoder_shapes(PREFIX, config).items()}


def _shape(config: DecoderConfig, most: int) -> EngineShape:
    blocks = POSITIONS // TOKENS
    return EngineShape(
        config.hidden_size, config.num_layers, config.num_kv_heads, config.head_dim, most, most, POSITIONS, TOKENS,
        most * blocks,
    )  # fmt: skip


class _Pair:
    """The same stack over both sets of operations, each with a pool of its own and the same numbers in it."""

    def __init__(self, bed: Bed, config: DecoderConfig, fused: bool = False, matrix: MakeMatrix = Dense) -> None:
        most = max(bed.sizes.compared)
        weights, shape = _weights(bed, config), _shape(config, most)
        self._bed, self._hidden = bed, config.hidden_size

        def stack(ops: Ops) -> DecoderStack:
            return DecoderStack(config, shape, weights, PREFIX, ops, matrix, fused=fused)

        self.mine, self.twin = stack(bed.mine), stack(bed.twin)
        self.mine.memory.copy_(bed.rand(*shape.pool_shape))
        self.twin.memory.copy_(self.mine.memory)
        numbers = torch.arange(shape.num_blocks, dtype=torch.int32).view(most, -1) * (2 * config.num_layers)
        self._tables = torch.stack([numbers, numbers + 1], dim=1).to(bed.device)

    def of(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """What both make of the same rows."""
        x = self._bed.rand(len(rows.slots), self._hidden)
        return self.mine(x, rows, self._tables), self.twin(x, rows, self._tables)


def _step(bed: Bed, count: int) -> Rows:
    return Rows(bed.ints(list(range(count))), bed.ints([SPREAD * (row + 1) % POSITIONS for row in range(count)]))


def _prompts(bed: Bed) -> Rows:
    chunks = list(bed.sizes.compared[:-1])
    slots = [slot for slot, count in enumerate(chunks) for _ in range(count)]
    positions = [place for count in chunks for place in range(count)]
    tiles = torch.tensor(cut_tiles(chunks), dtype=torch.int32, device=bed.device)
    return Rows(bed.ints(slots), bed.ints(positions), tiles, len(slots))


def _small(config: DecoderConfig) -> DecoderConfig:
    return replace(config, num_layers=LAYERS)


def _stack(bed: Bed, name: str, config: DecoderConfig) -> Pairs:
    pair = _Pair(bed, config)
    for count in bed.sizes.compared:  # one split, several, and where a server with many streams is
        yield f"{name}, {count} rows", *pair.of(_step(bed, count))
    yield f"{name}, prompts", *pair.of(_prompts(bed))
    yield f"{name}, pool", pair.mine.memory, pair.twin.memory


def _fused(bed: Bed, name: str, config: DecoderConfig) -> Pairs:
    pair = _Pair(bed, config, fused=True)
    few = bed.sizes.compared[1]
    yield f"{name} fused, {few} rows", *pair.of(_step(bed, few))


def _quantised(bed: Bed, name: str, config: DecoderConfig) -> Pairs:
    """Weight-only matrices by their own kernel and by the twin of it: the stacks differ in nothing else."""
    from kernels.gpu.quantised import scaled_product as fast

    kinds = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
    for kind, dtype in kinds.items():
        if kind == "fp8" and not knows_fp8(bed.device):
            continue
        pair = _Pair(bed, config, matrix=partial(quantise, dtype=dtype, product=fast))
        pair.twin.layers[:] = [_plain(layer) for layer in pair.twin.layers]
        for count in {bed.sizes.compared[1], bed.sizes.compared[-1]}:
            yield f"{name} {kind}, {count} rows", *pair.of(_step(bed, count))


def _plain(layer: StackLayer) -> StackLayer:
    """The same weights multiplied by plain torch."""

    def plain(matrix: Matrix) -> Matrix:
        return replace(matrix, product=scaled_product) if isinstance(matrix, WeightOnly) else matrix

    return replace(
        layer, qkv=plain(layer.qkv), out=plain(layer.out), gate_up=plain(layer.gate_up), down=plain(layer.down)
    )


def stack_results(bed: Bed) -> Pairs:
    """Both stacks: dense, with small launches joined, and quantised."""
    for name in STACKS:
        config = _small(getattr(bed.sizes.model, name))
        for compare in (_stack, _fused):
            yield from compare(bed, name, config)
    yield from _quantised(bed, STACKS[0], _small(bed.sizes.model.backbone))
