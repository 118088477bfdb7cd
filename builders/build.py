"""One command from checkpoints to a folder that the server can be pointed at."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from builders.export_encoder import export_encoder
from builders.export_token2wav import export_token2wav
from builders.limits import check_limits, check_question, most_positions
from builders.opening import Inputs, open_built, open_inputs
from builders.options import folder_options, placement_of, portable_options
from builders.render import Placement, render_repository
from builders.request import BuildRequest
from builders.steps import Builder, prepare_folder, weights_step
from builders.tensorrt.capacity import capacity_lines
from builders.tensorrt.preflight import check_room
from builders.tensorrt.profiles import choose_profile
from builders.tensorrt.sound import SoundBuild, sound_capacity
from builders.tensorrt.target import LanguageBuild
from builders.tensorrt.toolchain import find_toolchain
from builders.tiny_chat import write_tiny_chat
from builders.tiny_cosyvoice import write_tiny_cosyvoice
from runtime.checkpoint.weights import weight_files
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.frontend.options import ENCODER_GRAPH
from runtime.graphs.options import TENSORRT
from runtime.manifest import FileFacts, Manifest, installed
from runtime.options import OPTIONS_FILE, Options
from runtime.token2wav.options import TOKEN2WAV_FOLDER

TOKEN2WAV_SOURCES = [
    "builders/export_token2wav.py", "builders/noise_recipe.py", "builders/onnx_export.py", "builders/sound_sizes.py",
    "builders/voices.py", "kernels/flow.py", "runtime/token2wav",
]  # fmt: skip
VERSIONED = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "numpy")
TINY_CHAT, TINY_COSYVOICE = "tiny/fun_audio_chat", "tiny/cosyvoice3"
COSYVOICE_FILES = ("cosyvoice3.yaml", "flow.pt", "hift.pt", "spk2info.pt")
TEXT_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
    "special_tokens_map.json", "added_tokens.json", "generation_config.json", "preprocessor_config.json",
    "processor_config.json",
)  # fmt: skip


def build(request: BuildRequest, say: Callable[[str], None]) -> Manifest:
    """Builds or refreshes ``request.out``.

    Raises:
        BuildError: a checkpoint is missing or does not fit; the message names the variable, tensor or key.
    """
    request.check_files()
    builder = (_build_tensorrt if request.target == TENSORRT else _build_portable)(request, say)
    builder.manifest.write(request.out)
    open_built(request.out)
    return builder.manifest


def _build_portable(request: BuildRequest, say: Callable[[str], None]) -> Builder:
    """Exports the graphs and renders the repository of a target whose language engines need no compiler."""
    out = request.out
    versions = {name: installed(name) for name in VERSIONED}
    machine = find_toolchain(language=False) if request.sound_engine == TENSORRT else None
    builder = _begin(request, say, versions | (machine.versions if machine else {}), machine.gpu if machine else None)
    model, cosyvoice = _checkpoints(request, builder)
    opened = _open(request, model, cosyvoice, say)
    config, options = opened.config, portable_options(request, opened.config, cosyvoice)
    check_limits(opened, options)
    builder.run(weights_step(config, options.engine.dtype))
    _export_graphs(request, builder, config, cosyvoice)
    say(sound_capacity(options))
    if machine is not None:
        sound = SoundBuild.plan(
            out, cosyvoice, options.engine.max_streams, machine, request.token2wav_apart, request.settings
        )
        sound.compile(builder, options.encoder, config.features, machine)
    _render(builder, model, options, placement_of(request))
    return builder


def _begin(request: BuildRequest, say: Callable[[str], None], versions: dict[str, str], gpu: str | None) -> Builder:
    """The folder, which may hold an earlier build of the same target."""
    earlier = _earlier(request, versions | {"python": platform.python_version()}, gpu)
    return Builder(prepare_folder(request.out), earlier, say)


def _open(request: BuildRequest, model: Path, cosyvoice: Path, say: Callable[[str], None]) -> Inputs:
    """The checkpoints, found good, before anything is made of them."""
    opened = open_inputs(model, cosyvoice, request.voices)
    for note in opened.notes:
        say(note)
    return opened


def _build_tensorrt(request: BuildRequest, say: Callable[[str], None]) -> Builder:
    """Compiles the language engines. Refuses everything that it can before the first byte is written."""
    machine = find_toolchain()
    profile = choose_profile(request.profile, machine)
    out, chosen = request.out, request.settings
    builder = _begin(request, say, machine.versions, machine.gpu)
    model, cosyvoice = _checkpoints(request, builder)
    opened = _open(request, model, cosyvoice, say)
    config = opened.config
    profile = replace(profile, max_positions=most_positions(config, profile.max_positions))
    check_question(opened, profile.max_positions)
    sound = SoundBuild.plan(out, cosyvoice, profile.max_streams, machine, request.token2wav_apart, chosen)
    language = LanguageBuild.plan(out, config, profile, machine, sound.reserve)
    for line in [*capacity_lines(profile, machine.gpu, language.capacity), sound.capacity_line()]:
        say(line)
    check_room(out, language.needs(), machine.gpu_free_bytes)
    builder.run(weights_step(config, language.options.dtype))
    # Before the engines, whose compilation takes long: what cannot be exported is known within minutes.
    _export_graphs(request, builder, config, cosyvoice)
    for step in language.steps():
        builder.run(step)
    options = folder_options(request, config, cosyvoice, language.options, sound.options)
    if request.sound_engine == TENSORRT:
        sound.compile(builder, options.encoder, config.features, machine)
    _render(builder, model, options, placement_of(request))
    return builder


def _export_graphs(request: BuildRequest, builder: Builder, config: ModelConfig, cosyvoice: Path) -> None:
    """The ONNX files: what ``cpu`` runs is what ``tensorrt`` compiles."""
    out = request.out
    builder.step(
        "audio encoder",
        [config.directory / "config.json", *weight_files(config.directory)],
        ["builders/export_encoder.py", "builders/onnx_export.py", "runtime/families/fun_audio_chat/encoder.py"],
        None,
        lambda: export_encoder(config, out / ENCODER_GRAPH),
    )
    # Their content counts, not their file: what is read of it lies in the result, and a container that serves has none.
    voices = None if request.voices is None else FileFacts.of(request.voices).sha256
    builder.step(
        "token2wav",
        [p for p in sorted(cosyvoice.iterdir()) if p.name in COSYVOICE_FILES],
        TOKEN2WAV_SOURCES,
        voices,
        lambda: export_token2wav(cosyvoice, out / TOKEN2WAV_FOLDER, request.voices, builder.say),
    )


def _checkpoints(request: BuildRequest, builder: Builder) -> tuple[Path, Path]:
    """The given checkpoints, or tiny ones made in the folder."""
    if request.model is not None and request.cosyvoice is not None:
        return request.model, request.cosyvoice
    out = request.out
    builder.step(
        "tiny checkpoints",
        [],
        ["builders/tiny_chat.py", "builders/tiny_text.py", "builders/tiny_cosyvoice.py"],
        None,
        lambda: make_tiny(out),
    )
    return out / TINY_CHAT, out / TINY_COSYVOICE


def _earlier(request: BuildRequest, versions: dict[str, str], gpu: str | None = None) -> Manifest:
    fresh = Manifest(request.target, versions, gpu)
    try:
        old = Manifest.read(request.out)
    except BuildError:
        return fresh
    if old.target != request.target:
        raise BuildError("OUT", f"{request.out} holds target {old.target}", "choose another OUT or remove it")
    old.versions, old.gpu, old.version = versions, gpu, fresh.version
    return old


def make_tiny(out: Path) -> list[Path]:
    """Writes both tiny checkpoints below ``out`` and returns their files."""
    write_tiny_chat(out / TINY_CHAT)
    write_tiny_cosyvoice(out / TINY_COSYVOICE)
    return sorted(path for path in (out / "tiny").rglob("*") if path.is_file())


def _render(builder: Builder, model: Path, options: Options, placement: Placement) -> None:
    def render() -> list[Path]:
        options.write()
        return [*render_repository(options.folder, placement), options.folder / OPTIONS_FILE]

    builder.step(
        "model repository",
        [model / name for name in TEXT_FILES if (model / name).exists()],
        [
            "model_repository",
            "runtime/options.py",
            "runtime/engines/options.py",
            "runtime/frontend/options.py",
            "runtime/token2wav/options.py",
            "runtime/requests/limits.py",
            "builders/render.py",
        ],
        (replace(options, folder=Path()), sorted(placement.gpus.items())),
        render,
    )
