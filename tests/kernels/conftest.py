import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))
sys.path += [str(TESTS / "golden"), str(TESTS.parent)]


@pytest.fixture(scope="session")
def device():
    """The GPU where there is one; elsewhere Triton's interpreter works on CPU tensors."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def half(device):
    """A type of 16 bit. Triton's interpreter (3.6) cuts bfloat16 off where it should round, and multiplies its bits."""
    return torch.bfloat16 if device.type == "cuda" else torch.float16


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)
