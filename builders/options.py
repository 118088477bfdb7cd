"""The options of a built folder: what the target sets, what the checkpoint bears, and what the operator sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders.limits import most_positions
from builders.render import CPU_ONLY, ONE_GPU, TWO_GPUS, Placement
from builders.request import BuildRequest
from builders.tensorrt.sound import sound_options
from runtime.engines.options import CPU, CUDA, EngineOptions
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.frontend.options import ENCODER_GRAPH, EncoderOptions
from runtime.manifest import place_of
from runtime.options import Options, ServingOptions
from runtime.requests.limits import RequestLimits
from runtime.token2wav.options import Token2WavOptions

# Target cuda: 704 KiB of KV per position in bf16 are 33 GiB for the pool, which leaves an 80 GB GPU room for the
# weights (18 GiB) and for token2wav. Not yet tried on one.
KV_POSITIONS = 49152
MAX_STREAMS = 64


def cuda_engine(linear: str) -> EngineOptions:
    """Engine options of target cuda."""
    return EngineOptions(
        max_streams=MAX_STREAMS, kv_positions=KV_POSITIONS, dtype="bfloat16", device=CUDA, linear=linear
    )


def placement_of(request: BuildRequest) -> Placement:
    """Which model runs on which GPU."""
    if request.target == CPU:
        return CPU_ONLY
    return TWO_GPUS if request.token2wav_apart else ONE_GPU


def portable_options(request: BuildRequest, config: ModelConfig, cosyvoice: Path) -> Options:
    """Options of the targets that run without compiled engines."""
    engine, sound = EngineOptions(), Token2WavOptions()
    if request.target == CUDA:
        engine, sound = cuda_engine(request.linear), sound_options(MAX_STREAMS, request.token2wav_apart)
    engine = replace(engine, max_positions=most_positions(config, engine.max_positions))
    return folder_options(request, config, cosyvoice, engine, request.settings.apply("token2wav", sound))


def folder_options(
    request: BuildRequest, config: ModelConfig, cosyvoice: Path, engine: EngineOptions, sound: Token2WavOptions
) -> Options:
    """All options of a target whose engines and token2wav have these."""
    chosen = request.settings
    return Options(
        folder=request.out,
        model=place_of(config.directory.resolve(), request.out),
        features=config.features,
        encoder=encoder_options(request, config),
        engine=chosen.apply("engine", engine),
        serving=chosen.apply("serving", ServingOptions()),
        token2wav=sound,
        limits=chosen.apply("limits", RequestLimits()),
        target=request.target,
        sound=request.sound,
        cosyvoice=place_of(cosyvoice.resolve(), request.out),
    )


def encoder_options(request: BuildRequest, config: ModelConfig) -> EncoderOptions:
    """Options of the audio encoder."""
    encoder = config.encoder
    made = EncoderOptions(
        graph=ENCODER_GRAPH,
        frames=encoder.window_frames,
        groups=encoder.window_groups,
        group_size=encoder.group_size,
        hidden=config.backbone.hidden_size,
    )
    return request.settings.apply("encoder", made)
