"""The rendered model repository: a copy for the server, with the GPU that each model runs on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import BuildError
from runtime.manifest import PACKAGE_ROOT, REPOSITORY

CONFIG_FILE = "config.pbtxt"
# The public model runs both language engines, the encoder and token2wav the rest. Ensembles have no instances,
# and log-mel spectra are cheaper on the CPU than on their way to a GPU.
LANGUAGE_MODELS = ("fun_audio_chat", "audio_encoder")
TOKEN2WAV_MODELS = ("flow", "vocoder")


@dataclass(frozen=True, slots=True)
class Placement:
    """Which model runs on which GPU. ``gpus``: model name to GPU number; a model that is not named runs on the CPU."""

    gpus: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model, gpu in self.gpus.items():
            if gpu < 0:
                raise ValueError(f"{model}: {gpu} is no GPU number")

    def instance_group(self, model: str) -> str:
        """The line of ``config.pbtxt``: exactly one instance, which may hold the state of many streams."""
        if model not in self.gpus:
            return "instance_group [ { count: 1, kind: KIND_CPU } ]"
        return f"instance_group [ {{ count: 1, kind: KIND_GPU, gpus: [ {self.gpus[model]} ] }} ]"


CPU_ONLY = Placement()
ONE_GPU = Placement(dict.fromkeys((*LANGUAGE_MODELS, *TOKEN2WAV_MODELS), 0))
TWO_GPUS = Placement(dict.fromkeys(LANGUAGE_MODELS, 0) | dict.fromkeys(TOKEN2WAV_MODELS, 1))


def render_repository(folder: Path, placement: Placement = CPU_ONLY) -> list[Path]:
    """Copies ``model_repository/`` into ``folder``, places its models and returns the files.

    Raises:
        BuildError: the placement names a model that is not there or has no instances.
    """
    target = folder / REPOSITORY
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PACKAGE_ROOT / REPOSITORY, target, ignore=shutil.ignore_patterns("__pycache__"))
    for ensemble in target.iterdir():
        (ensemble / "1").mkdir(exist_ok=True)  # Triton wants a version folder of an ensemble too
    for model in placement.gpus:
        place(target / model / CONFIG_FILE, model, placement)
    return sorted(path for path in target.rglob("*") if path.is_file())


def place(path: Path, model: str, placement: Placement) -> None:
    """Puts the placement's instance group in place of the one that every model is committed with."""
    committed = CPU_ONLY.instance_group(model)
    text = path.read_text("utf-8") if path.is_file() else ""
    if text.count(committed) != 1:
        raise BuildError(f"{model}/{CONFIG_FILE}", f"does not hold {committed!r} exactly once", "name another model")
    path.write_text(text.replace(committed, placement.instance_group(model)), "utf-8")
