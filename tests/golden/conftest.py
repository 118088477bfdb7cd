import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "contracts"))  # the recorded interface of TensorRT


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
