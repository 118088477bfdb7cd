"""What a build needs from the machine: the library, its TensorRT and a GPU. Asked before anything else is done."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from runtime.engines.trtllm_files import TENSORRT_LLM
from runtime.errors import BuildError

IMAGE = "tritonserver:26.04-trtllm-python-py3"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Versions and the GPU. ``gpu_bytes`` is all of its memory, ``gpu_free_bytes`` what nobody uses now."""

    tensorrt_llm: str
    tensorrt: str
    torch: str
    gpu: str
    capability: tuple[int, int]
    gpu_bytes: int
    gpu_free_bytes: int

    def __post_init__(self) -> None:
        if self.tensorrt_llm != TENSORRT_LLM:
            raise BuildError("tensorrt_llm", f"is version {self.tensorrt_llm}, not {TENSORRT_LLM}", _use_the_image())

    @property
    def versions(self) -> dict[str, str]:
        """For the manifest."""
        return {"tensorrt_llm": self.tensorrt_llm, "tensorrt": self.tensorrt, "torch": self.torch}


def find_toolchain() -> Toolchain:
    """Imports the library and looks at the GPU.

    Raises:
        BuildError: no library, another version, or no GPU; the message names the image.
    """
    for name in ("tensorrt_llm", "tensorrt"):
        if find_spec(name) is None:
            raise BuildError(name, "is not installed here", _use_the_image())
    import torch

    if not torch.cuda.is_available():
        raise BuildError("GPU", "none is visible", f"start the container {IMAGE} with --gpus all")
    import tensorrt
    import tensorrt_llm

    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return Toolchain(
        tensorrt_llm=tensorrt_llm.__version__,
        tensorrt=tensorrt.__version__,
        torch=torch.__version__,
        gpu=properties.name,
        capability=(properties.major, properties.minor),
        gpu_bytes=total,
        gpu_free_bytes=free,
    )


def _use_the_image() -> str:
    return f"run make build-engines TARGET=tensorrt inside the container {IMAGE}, which will also serve"
