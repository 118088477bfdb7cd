"""How a device runs recorded work and hands results back: CUDA graphs and pinned memory, or plain calls.

A recorded piece of work reads and writes only tensors whose addresses never change. On a CPU recording it
means to keep the function: whatever is wrong with its buffers shows there as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from runtime.errors import BuildError

Work = Callable[[], None]
TURNS = 2  # results on their way at once: of the frame that runs and of the one before
WARM_UPS = 2  # runs before a capture: kernels are compiled, libraries take their workspaces


def gpu_device(number: int) -> torch.device:
    """A GPU by its number, which is the process's current one from now on.

    Raises:
        BuildError: torch finds none.
    """
    if not torch.cuda.is_available():
        raise BuildError(
            f"GPU {number}", "torch finds no GPU here", "give the container one, or run make build-engines TARGET=cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)  # Triton launches, and TensorRT loads, on the current device
    exact_sums()
    return device


def exact_sums() -> None:
    """No TF32, which the pitch net does not bear, and no partial sums of 16 bit where a product is split."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


class Fetch(Protocol):
    """Results that are on their way."""

    def wait(self) -> np.ndarray:
        """The array, once it has arrived. It holds until ``TURNS`` more are fetched."""


class Executor(Protocol):
    """One device."""

    device: torch.device

    def upload(self, target: torch.Tensor, values: np.ndarray) -> None:
        """Queues a copy of host values, which may be changed right afterwards, into a device tensor."""

    def record(self, work: Work, idle: Work) -> Work:
        """Work as something that can be queued again and again.

        Args:
            work: what to record; it may be run several times.
            idle: called before, so that those runs change nothing that anybody needs.
        """

    def fetch(self, source: torch.Tensor) -> Fetch:
        """Queues a copy of a device tensor to the host."""


class _Ready:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def wait(self) -> np.ndarray:
        return self._array


class EagerExecutor:
    """Calls functions when they are due. For a CPU, and to compare graphs with."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def upload(self, target: torch.Tensor, values: np.ndarray) -> None:
        target.copy_(torch.from_numpy(values))

    def record(self, work: Work, idle: Work) -> Work:
        return work

    def fetch(self, source: torch.Tensor) -> Fetch:
        return _Ready(source.cpu().numpy().copy())


class _Copied:
    def __init__(self, host: torch.Tensor, event: torch.cuda.Event) -> None:
        self._host, self._event = host, event

    def wait(self) -> np.ndarray:
        self._event.synchronize()
        return self._host.numpy()


class CudaExecutor:
    """CUDA graphs on the caller's stream; their memory is shared, because they never run at once.

    Args:
        priority: of the recorded kernels, as of ``torch.cuda.Stream``: lower numbers go first.
    """

    def __init__(self, device: torch.device | str = "cuda", priority: int = 0) -> None:
        self.device = torch.device(device)
        self._pool = torch.cuda.graph_pool_handle()
        # One for all warm-ups and captures: cuBLAS keeps a workspace of up to 32 MiB for every stream that it ever
        # saw, and two executors must not write into one. Recorded kernels keep its priority.
        self._aside = torch.cuda.Stream(self.device, priority=priority)
        self._hosts: dict[tuple[tuple[int, ...], torch.dtype], list[torch.Tensor]] = {}  # by all sizes but the first
        # All of them stay: with any that goes torch (2.13) frees the cuBLAS workspace that the others of the
        # stream were captured with, and into a pool whose graphs are all gone it captures nothing more.
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def upload(self, target: torch.Tensor, values: np.ndarray) -> None:
        """See ``Executor``. Torch's allocator keeps the pinned copy until the device has read it."""
        target.copy_(torch.from_numpy(values).pin_memory(), non_blocking=True)

    def record(self, work: Work, idle: Work) -> Work:
        idle()
        self._aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._aside):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream(self.device).wait_stream(self._aside)
        torch.cuda.synchronize(self.device)
        graph, caller = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        self._graphs.append(graph)
        try:
            # Other threads of the process may allocate meanwhile: only this thread's calls count.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(caller)  # a capture that fails leaves its own behind
        return graph.replay

    def fetch(self, source: torch.Tensor) -> Fetch:
        """See ``Executor``. Pins memory for the first result of these sizes, and for one with more rows than before."""
        host = self._host(source)
        host.copy_(source, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))  # another thread's current device may be another
        return _Copied(host, event)

    def _host(self, source: torch.Tensor) -> torch.Tensor:
        """Pinned memory for a result, the longest unused; results with fewer rows than another share its memory."""
        rows, *rest = source.shape or (1,)
        turns = self._hosts.get((tuple(rest), source.dtype), [])
        if not turns or len(turns[0]) < rows:  # all at once: pinning memory takes the host long
            turns = [torch.empty(rows, *rest, dtype=source.dtype, pin_memory=True) for _ in range(TURNS + 1)]
            self._hosts[tuple(rest), source.dtype] = turns
        turns.append(turns.pop(0))
        return turns[-1][:rows].view(source.shape)


def executor_for(device: torch.device, priority: int = 0) -> Executor:
    """What suits a device; ``priority``: see ``CudaExecutor``."""
    return CudaExecutor(device, priority) if device.type == "cuda" else EagerExecutor(device)
