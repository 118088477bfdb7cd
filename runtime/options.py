"""The one options file of a rendered folder (``options.json``), written by builders, read by models.

Frozen and validated; an unknown key is an error. Paths are relative to the folder unless absolute.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtime.checkpoint.features import FeatureConfig
from runtime.checkpoint.files import reason
from runtime.engines.options import CPU, CUDA, EngineOptions
from runtime.errors import BuildError
from runtime.frontend.options import EncoderOptions
from runtime.graphs.options import AUTO, ONNX, TENSORRT, TORCH
from runtime.requests.limits import RequestLimits
from runtime.token2wav.options import Token2WavOptions

OPTIONS_FILE = "options.json"
#: What may run encoder, flow and vocoder beside the language engines of a target; the first one does unless chosen.
SOUNDS = {CPU: (ONNX,), CUDA: (TORCH, TENSORRT), TENSORRT: (TENSORRT, TORCH)}
T = TypeVar("T")


# The supervisor takes a loop for lost that gives no sign of life for 15 s (``--heartbeat``).
SLOWEST_BEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Bounds of the public model (``docs/overload.md``). Times in seconds.

    ``max_waiting``: requests beyond those that hold a slot; None for as many as there are slots.
    ``max_wait_s``, ``batch_wait_s``: longest wait for a slot of the two classes.
    ``encode_s``: seconds of sound in one encoder call. Larger calls are cheaper, smaller ones let the
    prefill of some requests overlap the encoding of the next. ``gather_s``: the first call after a
    pause waits so long for company. ``stage_timeout_s``: a stage call that takes longer hangs, a stage that
    fails every call for longer is lost, and the server is restarted.
    """

    max_waiting: int | None = None
    max_wait_s: float = 10.0
    batch_wait_s: float = 60.0
    gather_s: float = 0.002
    encode_s: float = 10.0
    cancel_poll_s: float = 0.05
    heartbeat_s: float = 1.0
    stage_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.stage_timeout_s > 0:
            raise ValueError(f"stage_timeout_s: {self.stage_timeout_s} is not positive")
        if self.max_waiting is not None and self.max_waiting < 0:
            raise ValueError(f"max_waiting: {self.max_waiting} is below 0")
        for name in ("max_wait_s", "batch_wait_s", "encode_s", "cancel_poll_s", "heartbeat_s"):
            if not getattr(self, name) > 0:  # a NaN is not
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0")
        for name in ("cancel_poll_s", "heartbeat_s"):
            if getattr(self, name) > SLOWEST_BEAT_S:
                raise ValueError(f"{name}: {getattr(self, name)} is above {SLOWEST_BEAT_S:g}")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that the models of one rendered folder need to know.

    ``model``, ``cosyvoice``: the checkpoints; the second is read where sound is torch's. ``target``: of the
    language engines. ``sound``: what runs encoder, flow and vocoder, one of the target's ``SOUNDS``; empty: the first.
    """

    folder: Path
    model: str
    features: FeatureConfig
    encoder: EncoderOptions
    engine: EngineOptions = field(default_factory=EngineOptions)
    token2wav: Token2WavOptions = field(default_factory=Token2WavOptions)
    serving: ServingOptions = field(default_factory=ServingOptions)
    limits: RequestLimits = field(default_factory=RequestLimits)
    threads: int = 1
    target: str = CPU
    cosyvoice: str = ""
    sound: str = ""

    def __post_init__(self) -> None:
        check_target(self.target, self.sound_engine, self.encoder, self.token2wav)

    @property
    def sound_engine(self) -> str:
        """What runs encoder, flow and vocoder."""
        return chosen_sound(self.target, self.sound)

    @property
    def max_live(self) -> int:
        """Most requests without a last response: one for each slot, and those that wait."""
        slots, waiting = self.engine.max_streams, self.serving.max_waiting
        return slots + (slots if waiting is None else waiting)

    @property
    def token2wav_folders(self) -> tuple[Path, Path]:
        """What was exported of flow and vocoder, and the checkpoint with their weights."""
        return self.path(self.token2wav.dir), self.path(self.cosyvoice)

    def path(self, name: str) -> Path:
        """A path of this file, seen from the folder."""
        return self.folder / name

    @classmethod
    def read(cls, folder: Path) -> Options:
        """Raises BuildError when the file is missing, holds an unknown key or a bad value."""
        path = folder / OPTIONS_FILE
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            problem = f"cannot be read from {folder}: {reason(error)}"
            raise BuildError(OPTIONS_FILE, problem, "run make build-engines") from None
        if not isinstance(values, dict):
            raise BuildError(OPTIONS_FILE, "is not a JSON object", "run make build-engines")
        return _construct(cls, {"folder": folder, **values}, "")

    def write(self) -> None:
        """Writes the file into the folder."""
        values = dataclasses.asdict(self)
        del values["folder"]
        (self.folder / OPTIONS_FILE).write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def chosen_sound(target: str, sound: str) -> str:
    """What runs the sound of a target: as chosen, or its first. Raises ValueError for one that it does not have."""
    known = SOUNDS.get(target, (sound,))
    if sound and sound not in known:
        raise ValueError(f"sound: {sound!r} on target {target}, which takes {' or '.join(known)}")
    return sound or known[0]


def check_target(target: str, engine: str, encoder: EncoderOptions, sound: Token2WavOptions) -> None:
    """Raises ValueError for a choice that the target, or ``engine`` of its sound, does not have."""
    if target != CPU and sound.full_attention:
        raise ValueError(f"token2wav.full_attention: its shapes are not bounded, which {target} needs; use cpu")
    for name, section in (("encoder", encoder), ("token2wav", sound)):
        if engine != TORCH and section.engine != AUTO:
            where = f"target {CUDA} only" if target != CUDA else f"sound {TORCH} only"
            raise ValueError(f"{name}.engine: {section.engine!r} is a choice of {where}; use {AUTO}")


_SECTIONS: dict[str, type] = {
    "features": FeatureConfig,
    "encoder": EncoderOptions,
    "engine": EngineOptions,
    "token2wav": Token2WavOptions,
    "serving": ServingOptions,
    "limits": RequestLimits,
}


def _construct(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise BuildError(f"{OPTIONS_FILE}: {where}", "is not a JSON object", "run make build-engines")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - known)
    if unknown:
        raise BuildError(f"{OPTIONS_FILE}: {where}{unknown[0]}", "is unknown", f"known here: {sorted(known)}")
    given = {
        name: _construct(_SECTIONS[name], value, f"{name}.")
        if not where and name in _SECTIONS
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in values.items()
    }
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise BuildError(f"{OPTIONS_FILE}: {where or 'top level'}", str(error), "correct the value") from None
