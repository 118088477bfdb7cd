"""A folder with a compiled engine: what its ``config.json`` must say, and the way to a running engine.

The library writes the folder (``rank0.engine``, ``config.json``). Facts that the engine's tensors do not
show, such as the tokens of a block, are compared here.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from runtime.engines.trtllm.check import EngineMismatch
from runtime.engines.trtllm.engine import TrtLlmEngine
from runtime.engines.trtllm.pins import TENSORRT_LLM
from runtime.engines.trtllm.plugin import load_plugins, plugin_library
from runtime.engines.trtllm.spec import EngineProfile
from runtime.graphs.device import CudaDevice
from runtime.graphs.tensorrt import Plan, load_tensorrt

CONFIG_FILE, ENGINE_FILE = "config.json", "rank0.engine"
ENGINES = "engines"  # of a built folder; one folder per engine below it
REMEDY = "build it again with this version: make build-engines"


def expected_config(profile: EngineProfile) -> dict[str, object]:
    """What ``config.json`` must hold, by dotted path."""
    shape = profile.shape
    return {
        "version": TENSORRT_LLM,
        "pretrained_config.dtype": profile.dtype,
        "pretrained_config.hidden_size": shape.hidden_size,
        "pretrained_config.num_hidden_layers": shape.num_layers,
        "pretrained_config.num_key_value_heads": shape.num_kv_heads,
        "pretrained_config.head_size": shape.head_dim,
        "pretrained_config.mapping.world_size": 1,
        "build_config.max_batch_size": shape.max_batch_size,
        "build_config.max_input_len": profile.max_input_len,
        "build_config.max_num_tokens": shape.max_num_tokens,
        "build_config.max_seq_len": shape.max_seq_len,
        "build_config.max_beam_width": 1,
        "build_config.plugin_config.remove_input_padding": True,
        "build_config.plugin_config.tokens_per_block": shape.tokens_per_block,
        # Without it a prompt cannot be given in chunks: the plugin would ignore what is cached.
        "build_config.plugin_config.use_paged_context_fmha": True,
    }


def check_config(name: str, folder: Path, profile: EngineProfile) -> None:
    """Compares the folder's ``config.json`` with the profile.

    Raises:
        EngineMismatch: naming every value that differs, as built and as the runtime needs it.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineMismatch(name, f"{path} cannot be read: {error}", REMEDY) from None
    problems = []
    for dotted, wanted in expected_config(profile).items():
        found = _lookup(config, dotted)
        if found != wanted:
            problems.append(f"{dotted}: the engine was built with {found!r}, the runtime needs {wanted!r}")
    if problems:
        raise EngineMismatch(name, "; ".join(problems), REMEDY)


def _lookup(config: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def load_engine(name: str, folder: Path, profile: EngineProfile, device: CudaDevice, graphs: int = 0) -> TrtLlmEngine:
    """A compiled engine on a GPU, checked and ready.

    Args:
        name: for messages.
        folder: holds ``config.json`` and ``rank0.engine``.
        profile: what the runtime will ask of it.
        device: may be shared by engines, which then run one after another.
        graphs: see ``TrtLlmEngine``.

    Raises:
        BuildError: the engine is another one, or this is not the container it was built in.
    """
    check_config(name, folder, profile)
    trt = load_tensorrt()
    load_plugins(plugin_library())
    with (folder / ENGINE_FILE).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as blob:
        plan = Plan(trt, name, blob, device.stream)  # mapped: the released backbone is 16 GB
    return TrtLlmEngine(name, profile, plan, device, graphs)
