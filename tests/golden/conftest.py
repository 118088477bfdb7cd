import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "contracts"))  # the recorded interface of TensorRT

import token2wav_data

from builders.export_token2wav import export_token2wav


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The built folder of the golden token2wav net, with 10 s of its noise."""
    folder = tmp_path_factory.mktemp("token2wav")
    export_token2wav(token2wav_data.nets().config.directory, folder, None, noise_seconds=10)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
