"""Families by the ``model_type`` of a checkpoint's config.json. A family is imported when a checkpoint asks for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from runtime.checkpoint.fields import Fields
from runtime.errors import BuildError
from runtime.families.base import EncoderStage, Family

CONFIG_FILE = "config.json"
FAMILIES = {"funaudiochat": "fun_audio_chat"}  # the folder beside this file


def open_family(checkpoint: Path) -> Family:
    """Reads what the server needs to know of a checkpoint, without its weights.

    Raises:
        BuildError: no family has such checkpoints, or a file of this one does not fit.
    """
    family: Family = _module(checkpoint, "family").open_checkpoint(checkpoint)
    return family


def encoder_of(checkpoint: Path) -> type[EncoderStage]:
    """What runs the audio encoder of a checkpoint.

    Raises:
        BuildError: no family has such checkpoints.
    """
    stage: type[EncoderStage] = _module(checkpoint, "encoder_stage").EncoderStage
    return stage


def _module(checkpoint: Path, name: str) -> ModuleType:
    model_type = Fields.read(checkpoint / CONFIG_FILE).get("model_type", str)
    if model_type not in FAMILIES:
        problem = f"has model_type {model_type[:40]!r}"
        raise BuildError(CONFIG_FILE, problem, f"model types that can be served: {', '.join(FAMILIES)}")
    return importlib.import_module(f"{__package__}.{FAMILIES[model_type]}.{name}")
