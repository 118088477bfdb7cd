"""Memory that loading takes from a GPU at released sizes, by a model of torch's caching allocator.

Other processes of the server load at the same time: what this one keeps without use they cannot have.
"""

from dataclasses import replace

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from builders.released import full
from kernels.ops import twin_ops
from kernels.quantised import matrix_maker
from runtime.engines import kernel_stack
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat import stacks
from runtime.families.fun_audio_chat.stacks import build_steps
from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes

MIB, GIB = 1 << 20, 1 << 30
SMALL, LARGE = 1 * MIB, 10 * MIB  # of torch: below, tensors share segments of 2 MiB; from LARGE on have their own
SEGMENTS, ROUND, LEAST = (2 * MIB, 20 * MIB, 2 * MIB), 512, 1 * MIB


class Allocator(TorchDispatchMode):
    """Segments as torch takes them from a GPU: a freed one serves what fits into it, and is split."""

    def __init__(self):
        super().__init__()
        self.reserved = self.used = self.peak = 0
        self._free, self._live, self._segments = [], {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                storage = StorageWeakRef(leaf.untyped_storage())
                if storage.cdata not in self._live:
                    self._take(storage, leaf.untyped_storage().nbytes())
        return found

    def _take(self, storage, size):
        self._collect()
        size = -(-max(size, 1) // ROUND) * ROUND
        kind = 0 if size <= SMALL else 1
        fitting = [block for block in self._free if block[2] == kind and block[0] >= size]
        if fitting:
            block = min(fitting)
            self._free.remove(block)
        else:
            whole = SEGMENTS[0] if kind == 0 else SEGMENTS[1] if size < LARGE else -(-size // SEGMENTS[2]) * SEGMENTS[2]
            number = len(self._segments)
            self._segments[number] = whole
            self.reserved += whole
            block = (whole, number, kind)
        if block[0] - size >= (ROUND if kind == 0 else LEAST):
            self._free.append((block[0] - size, *block[1:]))
            block = (size, *block[1:])
        self._live[storage.cdata] = storage, block
        self.used += block[0]
        self.peak = max(self.peak, self.reserved)

    def _collect(self):
        for key in [key for key, (storage, _) in self._live.items() if storage.expired()]:
            _, block = self._live.pop(key)
            self.used -= block[0]
            self._free.append(block)

    def empty_cache(self):
        """Gives back segments of which nothing is used."""
        self._collect()
        busy = {block[1] for _, block in self._live.values()}
        for number in [number for number in self._segments if number not in busy]:
            self.reserved -= self._segments.pop(number)
        self._free = [block for block in self._free if block[1] in busy]


def load(linear, monkeypatch, gives_back):
    allocator, sizes = Allocator(), full().model
    if linear != "dense":  # many small steps: fewer layers show the same
        fewer = {name: replace(getattr(sizes, name), num_layers=6) for name in ("backbone", "speech_head")}
        sizes = replace(sizes, **fewer)
    for module in (kernel_stack, stacks):
        monkeypatch.setattr(module, "give_back", lambda device: allocator.empty_cache() if gives_back else None)
    options = EngineOptions(64, 4096, 49152, 512, dtype="bfloat16", device="cuda", linear=linear)
    shapes = backbone_shapes(sizes) | speech_shapes(sizes)
    with torch.inference_mode(), allocator:
        weights = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
        steps = build_steps(sizes, options, weights, twin_ops(), matrix_maker(linear))
    allocator._collect()
    return allocator, steps


@pytest.mark.parametrize("linear", ["dense", "int8"])
def test_nothing_is_kept_that_loading_needed(linear, monkeypatch):
    allocator, _steps = load(linear, monkeypatch, True)
    assert allocator.used > (40 if linear == "dense" else 8) * GIB
    assert allocator.reserved <= allocator.used + GIB and allocator.peak <= allocator.used + GIB


def test_the_model_of_the_allocator_notices(monkeypatch):
    """Control: without giving back, parts of joined matrices stay, each too small for the next whole one."""
    allocator, _steps = load("dense", monkeypatch, False)
    assert allocator.reserved > allocator.used + 5 * GIB
