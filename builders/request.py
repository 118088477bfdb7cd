"""What the operator wants built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from builders.settings import Settings
from runtime.checkpoint.files import naming
from runtime.engines.options import CPU, CUDA, DENSE, LINEARS
from runtime.errors import BuildError
from runtime.graphs.options import TENSORRT
from runtime.options import chosen_sound

TARGETS = (CPU, CUDA, TENSORRT)
COMPILED_TAKE = {"graphs"}  # options of compiled engines; no other target has them


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build. Without checkpoints the tiny ones are made inside ``out``.

    ``token2wav_apart``: flow and vocoder get a GPU of their own (GPU targets only). ``linear``: how target
    cuda stores its matrices (``runtime.engines.options.LINEARS``). ``settings``: options that are not left alone.
    ``sound``: what runs encoder, flow and vocoder, where the target has a choice (``runtime.options.SOUNDS``).
    """

    target: str
    out: Path
    model: Path | None = None
    cosyvoice: Path | None = None
    voices: Path | None = None
    profile: str | None = None
    token2wav_apart: bool = False
    linear: str = DENSE
    settings: Settings = field(default_factory=Settings)
    sound: str = ""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BuildError("TARGET", f"{self.target!r} cannot be built by this version", f"use {', '.join(TARGETS)}")
        if self.profile and self.target != TENSORRT:
            raise BuildError("PROFILE", f"{self.profile!r}: target {self.target} has no profiles", "leave it out")
        if self.linear not in LINEARS or (self.linear != DENSE and self.target != CUDA):
            known = ", ".join(LINEARS)
            raise BuildError("linear", f"{self.linear!r} on target {self.target}", f"target cuda takes {known}")
        try:
            chosen_sound(self.target, self.sound)
        except ValueError as error:
            raise BuildError("sound", str(error).removeprefix("sound: "), "leave it out") from None
        self.settings.check(self.target, self.sound)
        self._check_engine()
        if (self.model is None) != (self.cosyvoice is None):
            missing = "MODEL" if self.model is None else "COSYVOICE"
            raise BuildError(missing, "is not given", "give both checkpoints, or none for the tiny ones")

    def _check_engine(self) -> None:
        chosen = self.settings.values.get("engine", {}).keys()
        if self.target == TENSORRT and chosen - COMPILED_TAKE:
            raise BuildError("set", "engine: its sizes are compiled into the engines", "choose a PROFILE")
        if self.target != TENSORRT and chosen & COMPILED_TAKE:
            raise BuildError("set", f"engine.{min(COMPILED_TAKE)} is for target {TENSORRT}", "leave it out")

    @property
    def sound_engine(self) -> str:
        """What runs encoder, flow and vocoder."""
        return chosen_sound(self.target, self.sound)

    def check_files(self) -> None:
        """Raises BuildError, naming the variable, for a checkpoint that is not there: a step takes minutes."""
        for name, path in (("MODEL", self.model), ("COSYVOICE", self.cosyvoice)):
            with naming(name, "make it readable"):
                is_there = path is None or (path.is_dir() and _is_listed(path))
            if not is_there:
                raise BuildError(name, f"{path} is no directory", f"give the checkpoint's: {name}=<dir>")
        with naming("VOICES", "make it readable"):
            is_there = self.voices is None or self.voices.is_file()
        if not is_there:
            raise BuildError("VOICES", f"{self.voices} is no file", "give the voices': VOICES=<file>, or leave it out")


def _is_listed(folder: Path) -> bool:
    """True; raises OSError for a folder whose files may not be seen."""
    next(folder.iterdir(), None)
    return True
