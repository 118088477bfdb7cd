"""Work that is recorded, watched operation by operation at released sizes without a GPU and without memory for it.

Tensors are on ``meta``: they have sizes and no numbers. Launches of kernels are caught.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
MOST_GRID = (2**31 - 1, 65535, 65535)
ASKS = (torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded)
BOOLEAN = (torch.bool, torch.uint8)
launched: list[tuple[str, tuple[int, ...], list[torch.Tensor]]] = []


def catch_launches(jit_function: type) -> None:
    """Launches are noted in ``launched`` and do nothing."""

    def run(kernel, *args, grid, warmup, **options):
        tensors = [value for value in (*args, *options.values()) if isinstance(value, torch.Tensor)]
        launched.append((kernel.fn.__name__, grid, tensors))

    jit_function.run = run


class Watch(TorchDispatchMode):
    """Notes what may not be in a recording, and all memory that it touches."""

    def __init__(self):
        super().__init__()
        self.problems, self.outside, self.made = [], {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.touch(str(func), tensors)
        found = func(*args, **(kwargs or {}))
        indices = tree_leaves(args[1]) if func.overloadpacket.__name__ == "index" else []
        chosen = func.overloadpacket.__name__ in ("nonzero", "masked_select", "unique")
        if any(tag in func.tags for tag in ASKS) or chosen or any(i.dtype in BOOLEAN for i in indices if i is not None):
            self.problems.append(f"{func}: depends on numbers, or draws some")
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                storage = StorageWeakRef(leaf.untyped_storage())
                if storage.cdata not in self.outside:
                    self.made.setdefault(storage.cdata, storage)
        return found

    def touch(self, what, tensors):
        for tensor in tensors:
            if tensor.device != META:
                self.problems.append(f"{what}: a tensor on {tensor.device}")
            storage = StorageWeakRef(tensor.untyped_storage())
            if storage.cdata not in self.made:
                self.outside.setdefault(storage.cdata, storage)

    def launches(self):
        for name, grid, tensors in launched:
            self.touch(name, tensors)
            if any(size > most or size < 1 for size, most in zip(grid, MOST_GRID, strict=False)):
                self.problems.append(f"{name}: grid {grid}")
        launched.clear()


class _Zeros:
    def __init__(self, source):
        self._array = np.zeros(tuple(source.shape), torch.empty(0, dtype=source.dtype).numpy().dtype)

    def wait(self):
        return self._array


class Recorder:
    """An executor on ``meta``: every recording is watched once, and runs no more."""

    def __init__(self):
        self.device, self.problems, self.count, self._outside = META, [], 0, {}
        gc.freeze()  # what is there already need not be looked at after every recording

    def upload(self, target, values):
        assert target.shape == values.shape

    def record(self, work: Callable[[], None], idle: Callable[[], None]) -> Callable[[], None]:
        idle()
        launched.clear()
        watch = Watch()
        with watch:
            work()
        watch.launches()
        gc.collect()
        self.count += 1
        self.problems += watch.problems
        self.problems += ["memory of a recording outlives it" for one in watch.made.values() if not one.expired()]
        self._outside |= watch.outside
        return lambda: None

    def fetch(self, source):
        return _Zeros(source)

    def lost(self):
        """How many tensors that a recording reads or writes are gone."""
        gc.collect()
        return sum(storage.expired() for storage in self._outside.values())
