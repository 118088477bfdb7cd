"""What launch functions share: how many programs a device wants, and checks of sizes."""

from __future__ import annotations

import torch

from kernels.paged_rows import Pool

__all__ = ["Pool", "check_power_of_two", "splits_for"]

MAX_SPLITS = 32
PROGRAMS_PER_PROCESSOR = 2  # so that one program's loads hide behind another's arithmetic
INTERPRETER_PROCESSORS = 4  # of a CPU, for the sake of tests


def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a device."""
    if device.type != "cuda":
        return INTERPRETER_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def splits_for(programs: int, device: torch.device) -> int:
    """Into how many parts (a power of two) each of ``programs`` should be cut to fill the device."""
    wanted = PROGRAMS_PER_PROCESSOR * processors(device) // max(1, programs)
    return 1 << (min(MAX_SPLITS, max(1, wanted)).bit_length() - 1)


def check_power_of_two(name: str, value: int) -> None:
    """Raises ValueError: a kernel's tiles are powers of two."""
    if value < 1 or value & (value - 1):
        raise ValueError(f"{name}: {value} is not a power of two, which the kernels need; use the twins")
