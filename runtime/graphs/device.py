"""Memory, one stream, events and graphs of a device: what an engine needs and no more.

``CudaDevice`` is the real one. Tests bring their own, so that everything above runs without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from kernels.ops import Ops, kernel_ops, twin_ops
from runtime.errors import BuildError

ALIGNMENT = 256  # bytes; what TensorRT documents for tensor addresses


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Host values on a device without a wait: from pageable memory the copy would wait for all that is queued."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def give_back(device: torch.device) -> None:
    """Returns to the GPU what torch keeps of memory that nothing uses: other processes load there meanwhile."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def ops_for(device: torch.device) -> Ops:
    """The operations that a device runs best: kernels on a GPU, their twins elsewhere.

    Raises:
        BuildError: a GPU without Triton: the twins would make the host wait at every id.
    """
    if device.type != "cuda":
        return twin_ops()
    try:
        return kernel_ops()
    except ImportError as error:
        raise BuildError("triton", f"cannot be imported ({error})", "install triton >= 3.5 beside torch") from None


class Mark(Protocol):
    """A point in the work of a stream."""

    def wait(self) -> None:
        """Blocks the caller until the stream has passed it; returns at once when it has."""


class Device(Protocol):
    """Where an engine lives. All work that it starts runs in order on one stream of its own."""

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""

    def device_bytes(self, size: int) -> torch.Tensor:
        """[size] uint8 of zeroed device memory, aligned."""

    def host_bytes(self, size: int) -> torch.Tensor:
        """[size] uint8 of zeroed host memory that the device can copy from, aligned."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Queues a copy, with a change of dtype where they differ. Both must stay as they are until it is done."""

    def follow_caller(self) -> None:
        """What is queued from now on waits for what the caller's stream holds."""

    def lead_caller(self) -> None:
        """The caller's stream waits for what is queued so far."""

    def mark(self) -> Mark:
        """A mark behind everything queued so far."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what ``work`` queues, without running it, and returns what queues the record.

        Waits for the device first. Raises RuntimeError when something that was queued cannot be recorded.
        """


class CudaDevice:
    """A CUDA device through torch. The stream is never the default one, which TensorRT advises against."""

    def __init__(self, index: int = 0) -> None:
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)

    @property
    def stream(self) -> int:
        return int(self._stream.cuda_stream)

    def device_bytes(self, size: int) -> torch.Tensor:
        """See ``Device``. Torch aligns device memory to 512 bytes."""
        return torch.zeros(size, dtype=torch.uint8, device=self._device)

    def host_bytes(self, size: int) -> torch.Tensor:
        """See ``Device``: pinned memory."""
        return aligned(torch.zeros(size + ALIGNMENT, dtype=torch.uint8).pin_memory(), size)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            if source.is_cuda:
                # The caller may drop it before the copy has run; its memory must not be given away meanwhile.
                source.record_stream(self._stream)

    def follow_caller(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def lead_caller(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def mark(self) -> Mark:
        event = torch.cuda.Event()
        event.record(self._stream)
        return _CudaMark(event)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph, caller = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # Other threads of the process may allocate meanwhile: only this thread's calls count.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(caller)  # torch leaves its own behind when a capture fails

        def replay() -> None:
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay


class _CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()


def aligned(memory: torch.Tensor, size: int) -> torch.Tensor:
    """``size`` bytes of ``memory`` that begin at an aligned address."""
    skip = -memory.data_ptr() % ALIGNMENT
    return memory[skip : skip + size]
