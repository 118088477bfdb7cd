"""What the exported folder holds: file names, and the sizes that the stages need at run time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.errors import BuildError

FRONT_GRAPH, VOCODER_GRAPH = "flow_front.onnx", "vocoder.onnx"
STEP_GRAPHS = {"float32": "flow_step.onnx", "float16": "flow_step.fp16.onnx"}  # by the type of products and caches
MEL_NOISE, SOURCE_NOISE = "mel_noise.npy", "source_noise.npy"
VOICES, SIZES = "voices.npz", "token2wav.json"
DEFAULT_WINDOW = 8  # blocks of 1 s: as much left context as the authors' demo server keeps
NO_BLOCK = -1  # in tables of cached blocks: nothing to see


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes and rates of an exported flow and vocoder, and the voices' names, the default first.

    ``lookbehind``, ``lookahead``: tokens before and after a chunk that its mel depends on.
    ``block_frames``: frames of a block of attention. ``tail_frames``: frames before a call that the
    position convolutions see. ``vocoder_left``: mel frames to the left of a chunk that its sound
    depends on.
    """

    vocab_size: int
    mel_bins: int
    speaker_dim: int
    lookbehind: int
    lookahead: int
    frames_per_token: int
    block_frames: int
    euler_steps: int
    dim: int
    depth: int
    heads: int
    head_dim: int
    tail_frames: int
    harmonics: int
    frame_samples: int
    sample_rate: int
    vocoder_left: int
    voices: tuple[str, ...]

    @property
    def block_tokens(self) -> int:
        """Speech tokens of a block of attention."""
        return self.block_frames // self.frames_per_token

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
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BuildError(SIZES, f"cannot be read from {folder} ({error})", "run make build-engines") from None
