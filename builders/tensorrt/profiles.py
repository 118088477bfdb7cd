"""What is compiled for which GPU. One table; memory is divided in ``capacity``."""

from __future__ import annotations

from dataclasses import dataclass

from builders.tensorrt.precision import Precision
from builders.tensorrt.toolchain import Toolchain
from runtime.errors import BuildError

HOPPER, AMPERE = (9, 0), (8, 0)  # compute capabilities of H100 and A100


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes of both engines of one GPU model.

    Args:
        capability: compute capability; a plan runs on no other.
        precision: name of a ``Precision``.
        max_streams: sequences of a step.
        max_positions: backbone positions of a conversation. One is 200 ms of speech, five in the speech head.
        prefill_chunk: backbone positions of prompts in one step.
        tokens_per_block: positions of a KV block, a power of two.
    """

    name: str
    capability: tuple[int, int]
    precision: str
    max_streams: int
    max_positions: int = 4096
    prefill_chunk: int = 512
    tokens_per_block: int = 32

    def __post_init__(self) -> None:
        Precision.named(self.precision)
        for name in ("max_streams", "max_positions", "prefill_chunk", "tokens_per_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")


# 4096 positions are twice what the model was trained with (about six minutes). Streams: the goals of the
# design, 64 on an H100 and 24 on an A100 with everything on one GPU, 96 and 32 with the vocoder elsewhere.
# A chunk of 512 keeps a joining prompt's step short: 2560 rows in the speech head.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("h100-bf16", HOPPER, "bf16", max_streams=96),
        Profile("h100-w8a16", HOPPER, "w8a16", max_streams=96),
        Profile("a100-bf16", AMPERE, "bf16", max_streams=32),
        Profile("a100-w8a16", AMPERE, "w8a16", max_streams=32),
    )
}


def choose_profile(name: str | None, machine: Toolchain) -> Profile:
    """The named profile, or the machine's bf16 one.

    Raises:
        BuildError: unknown, or made for another GPU.
    """
    fitting = [profile.name for profile in PROFILES.values() if profile.capability == machine.capability]
    if name is None and fitting:
        return PROFILES[fitting[0]]
    remedy = f"this GPU takes {', '.join(fitting)}" if fitting else f"the profiles are for {_gpus()}"
    if name is not None and name not in PROFILES:
        raise BuildError("PROFILE", f"{name!r} is unknown", f"use one of {', '.join(PROFILES)}")
    if name not in fitting:
        capability = ".".join(map(str, machine.capability))
        raise BuildError("PROFILE", f"{name or 'none'} does not fit {machine.gpu} (compute {capability})", remedy)
    return PROFILES[name]


def _gpus() -> str:
    return " and ".join(sorted({name.split("-")[0].upper() for name in PROFILES}))
