"""What the exported folder holds: file names, and the sizes that the stages need at run time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import BuildError

FRONT_GRAPH, STEP_GRAPH, VOCODER_GRAPH = "flow_front.onnx", "flow_step.onnx", "vocoder.onnx"
MEL_NOISE, SOURCE_NOISE = "mel_noise.npy", "source_noise.npy"
VOICES, SIZES = "voices.npz", "token2wav.json"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes and rates of an exported flow and vocoder, and the voices' names, the default first.

    ``block_frames``: frames of a block of attention. ``vocoder_left``: mel frames to the left of a
    chunk that its sound depends on.
    """

    vocab_size: int
    mel_bins: int
    lookahead: int
    frames_per_token: int
    block_frames: int
    euler_steps: int
    harmonics: int
    frame_samples: int
    sample_rate: int
    vocoder_left: int
    voices: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """Writes the file and returns its path."""
        path = folder / SIZES
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> Sizes:
        """Raises BuildError when the folder was not written by this version's export."""
        try:
            values = json.loads((folder / SIZES).read_text("utf-8"))
            return cls(**values | {"voices": tuple(values["voices"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BuildError(SIZES, f"cannot be read from {folder} ({error})", "run make build-engines") from None
