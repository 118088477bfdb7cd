"""Which model runs on which GPU, as ``instance_group`` of a rendered ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The public model runs both language engines, the encoder and token2wav the rest. Ensembles have no instances,
# and log-mel spectra are cheaper on the CPU than on their way to a GPU.
LANGUAGE_MODELS = ("fun_audio_chat", "audio_encoder")
TOKEN2WAV_MODELS = ("flow", "vocoder")


@dataclass(frozen=True, slots=True)
class Placement:
    """``gpus``: model name to GPU number. A model that is not named runs on the CPU."""

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
