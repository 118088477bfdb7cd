"""A Fun-Audio-Chat checkpoint to TensorRT-LLM checkpoints, one tensor at a time.

A directory holds ``config.json`` and ``rank0.safetensors``. Memory stays near the largest single tensor
however large the model is: sources are mapped one by one, blocks of rows are written as they come.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from builders.tensorrt.convert_config import checkpoint_config
from builders.tensorrt.convert_plan import CheckpointPlan, Target
from builders.tensorrt.precision import Precision
from builders.tensorrt.tensor_file import TensorFile
from runtime.checkpoint.weights import locate_weights, read_rows
from runtime.engines.trtllm.files import CONFIG_FILE

WEIGHTS_FILE = "rank0.safetensors"
BLOCK_BYTES = 64 << 20  # large enough for the disk, small beside a tensor of the released model


def convert(
    source: Path,
    plan: CheckpointPlan,
    precision: Precision,
    positions: int,
    out: Path,
    advanced: Callable[[int], object] | None = None,
) -> list[Path]:
    """Writes one TensorRT-LLM checkpoint and returns its files.

    Args:
        source: the Fun-Audio-Chat directory.
        plan: tensors of the backbone or the speech head.
        positions: of the engine's longest sequence.
        out: directory of the new checkpoint.
        advanced: called with the bytes of every finished tensor; by default a progress bar on a terminal's stderr.

    Raises:
        BuildError: a tensor is missing, mis-shaped or in a damaged file.
    """
    files = locate_weights(source, plan.source_shapes)
    out.mkdir(parents=True, exist_ok=True)
    weights, config = out / WEIGHTS_FILE, out / CONFIG_FILE
    dtype = precision.torch_dtype
    with TensorFile(weights, {t.name: t.shape for t in plan.targets}, dtype) as file, _bar(plan, file.total) as bar:
        for target in plan.targets:
            (advanced or bar.update)(file.write(target.name, _blocks(files, target, dtype)))
    config.write_text(json.dumps(checkpoint_config(plan, precision, positions), indent=1) + "\n", "utf-8")
    return [config, weights]


def _blocks(files: dict[str, Path], target: Target, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    for source in target.sources:
        yield from read_rows(files[source], source, dtype, BLOCK_BYTES)


def _bar(plan: CheckpointPlan, total: int) -> tqdm:
    # disable=None: no bar in a log file.
    return tqdm(total=total, desc=plan.name, unit="B", unit_scale=True, ascii=True, file=sys.stderr, disable=None)
