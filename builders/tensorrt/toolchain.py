"""What a build needs from the machine: the library, its TensorRT and a GPU. Asked before anything else is done."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runtime.engines.trtllm.files import TENSORRT_LLM
from runtime.errors import BuildError

IMAGE = "tritonserver:26.04-trtllm-python-py3"
USE_THE_IMAGE = f"run make build-engines TARGET=tensorrt inside the container {IMAGE}, which will also serve"
OLDEST, NEWER = (10, 14), (12, 0)  # TensorRT for plans: the oldest, and the first that is too new
INSTALL_TENSORRT = "install NVIDIA's tensorrt 10.14 to 11 beside torch, or build with --sound torch"
TIMING = "timing"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Versions and the GPU. ``gpu_bytes`` is all of its memory, ``gpu_free_bytes`` what is free of it now.

    ``tensorrt_llm``: None where only plans are built, which any TensorRT from 10.14 to 11 does.
    """

    tensorrt_llm: str | None
    tensorrt: str
    torch: str
    gpu: str
    capability: tuple[int, int]
    gpu_bytes: int
    gpu_free_bytes: int

    def __post_init__(self) -> None:
        if self.tensorrt_llm not in (None, TENSORRT_LLM):
            raise BuildError("tensorrt_llm", f"is version {self.tensorrt_llm}, not {TENSORRT_LLM}", USE_THE_IMAGE)
        if not OLDEST <= _major_minor(self.tensorrt) < NEWER:
            problem = f"is version {self.tensorrt}, plans are for {_dotted(OLDEST)} to {NEWER[0] - 1}"
            raise BuildError("tensorrt", problem, "install another one")

    @property
    def versions(self) -> dict[str, str]:
        """For the manifest."""
        language = {} if self.tensorrt_llm is None else {"tensorrt_llm": self.tensorrt_llm}
        return language | {"tensorrt": self.tensorrt, "torch": self.torch}

    def timing_cache(self, out: Path) -> Path:
        """Below a built folder. Measured times hold for one GPU model and one TensorRT only."""
        gpu = self.gpu.replace(" ", "_").replace("/", "_")
        return out / TIMING / f"{gpu}-{self.tensorrt}.cache"


def find_toolchain(language: bool = True) -> Toolchain:
    """Imports the libraries and looks at the GPU.

    Args:
        language: with what the language engines need; plans alone need TensorRT only.

    Raises:
        BuildError: no library, another version, or no GPU; the message names the image.
    """
    for name in ("tensorrt_llm", "tensorrt") if language else ("tensorrt",):
        if find_spec(name) is None:
            raise BuildError(name, "is not installed here", USE_THE_IMAGE if language else INSTALL_TENSORRT)
    import torch

    if not torch.cuda.is_available():
        where = f"start the container {IMAGE} with --gpus all" if language else "build on the machine that will serve"
        raise BuildError("GPU", "none is visible", where)
    import tensorrt

    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return Toolchain(
        tensorrt_llm=_language_version() if language else None,
        tensorrt=tensorrt.__version__,
        torch=torch.__version__,
        gpu=properties.name,
        capability=(properties.major, properties.minor),
        gpu_bytes=total,
        gpu_free_bytes=free,
    )


def _language_version() -> str:
    import tensorrt_llm

    return str(tensorrt_llm.__version__)


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
