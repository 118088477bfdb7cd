"""The CUDA side of the compiled engines' runtime, without TensorRT: order of work, pinned memory, graphs."""

import pytest
import torch

from runtime.graphs.device import ALIGNMENT, CudaDevice

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIZE = 1 << 20


def queue(device, work):
    with torch.cuda.stream(torch.cuda.ExternalStream(device.stream)):
        work()


def test_memory_is_aligned_and_where_it_should_be():
    device = CudaDevice()
    for size in (1, 300, SIZE):
        on_device, on_host = device.device_bytes(size), device.host_bytes(size)
        assert on_device.is_cuda and on_host.is_pinned()
        assert on_device.data_ptr() % ALIGNMENT == on_host.data_ptr() % ALIGNMENT == 0
        assert len(on_device) == len(on_host) == size


def test_copies_run_in_order_with_the_callers_work():
    device = CudaDevice()
    host, target = device.host_bytes(SIZE), device.device_bytes(SIZE)
    for value in range(1, 20):
        host.fill_(value)
        device.follow_caller()
        device.copy(target, host)
        mark = device.mark()
        device.lead_caller()
        assert int(target.max()) == int(target.min()) == value
        mark.wait()


def test_a_captured_step_is_replayed_on_what_lies_in_its_memory_then():
    device = CudaDevice()
    source, target = (device.device_bytes(SIZE).view(torch.float32) for _ in range(2))
    torch.cuda.synchronize()
    work = lambda: queue(device, lambda: torch.add(source, 1.0, out=target))  # noqa: E731
    work()
    replay = device.capture(work)
    for value in (1.0, 2.0):
        fresh = torch.full_like(source, value)
        device.follow_caller()
        device.copy(source, fresh)
        replay()
        device.lead_caller()
        assert float(target.sum()) == (value + 1.0) * len(target)


def test_what_cannot_be_captured_is_an_error():
    device = CudaDevice()
    source = device.device_bytes(SIZE)
    with pytest.raises(RuntimeError):
        device.capture(lambda: queue(device, lambda: source.max().item()))
