"""Every graph with random weights, and the shapes that the product compiles it for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from builders.export_encoder import export_loaded
from builders.export_token2wav import export_front, export_step, export_vocoder
from builders.released import BenchSizes, full, tiny
from builders.sound_sizes import sizes_of
from builders.tensorrt.profiles import PROFILES
from builders.tensorrt.sound import PRECISION, sound_options
from runtime.checkpoint.features import FeatureConfig
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.encoder_stage import encoder_profile
from runtime.frontend.options import ENCODER_GRAPH, EncoderOptions
from runtime.graphs.shapes import Profile
from runtime.options import Options
from runtime.token2wav.build import plan_profiles
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.layout import FRONT_GRAPH, STEP_GRAPHS, VOCODER_GRAPH, Sizes
from runtime.token2wav.vocoder.net import Vocoder

TOKEN_HZ = 25
ENCODER = Path(ENCODER_GRAPH).name
GRAPHS: dict[str, Callable[[BenchSizes, Path], list[Path]]] = {
    ENCODER: lambda sizes, out: export_loaded(_encoder(sizes), out / ENCODER),
    FRONT_GRAPH: lambda sizes, out: export_front(_flow(sizes), out),
    **{
        name: lambda sizes, out, precision=precision: export_step(_flow(sizes), out, precision)  # type: ignore[misc]
        for precision, name in STEP_GRAPHS.items()
    },
    VOCODER_GRAPH: lambda sizes, out: export_vocoder(_lifted(Vocoder(sizes.hift)), out),
}

#: Those that target ``tensorrt`` compiles.
COMPILED = [name for name in GRAPHS if name not in STEP_GRAPHS.values() or name == STEP_GRAPHS[PRECISION]]


def named_sizes(name: str) -> BenchSizes:
    """``full``: as released. ``smallest``: of every kind of layer one, which says as much of an exporter."""
    if name == "full":
        return full()
    sizes, one = tiny(), ((1,),)
    stages = len(sizes.hift.source_kernels)
    hift = replace(sizes.hift, resblock_kernels=(3,), resblock_dilations=one, source_dilations=one * stages)
    return replace(sizes, flow=replace(sizes.flow, depth=1), hift=hift)


def export_random(name: str, sizes: BenchSizes, out: Path) -> list[Path]:
    """Writes one graph of a net that is not trained."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return GRAPHS[name](sizes, out)


def _encoder(sizes: BenchSizes) -> AudioEncoder:
    return AudioEncoder(sizes.model.encoder, sizes.model.backbone.hidden_size).eval()


def _flow(sizes: BenchSizes) -> Flow:
    flow, half = Flow(sizes.flow).eval(), sizes.flow.head_dim // 2
    flow.estimator.rotary_embed.inv_freq.copy_(10000.0 ** (-torch.arange(half) / half))  # type: ignore[operator]
    return flow


def _lifted(vocoder: Vocoder) -> Vocoder:
    nn.init.constant_(vocoder.f0_predictor.classifier.bias, 150.0)  # a net that is not trained has no voice
    return vocoder.eval()


def random_profiles(sizes: BenchSizes) -> dict[str, Profile]:
    """As the product compiles a net of these sizes."""
    encoder = sizes.model.encoder
    options = EncoderOptions(
        ENCODER, encoder.window_frames, encoder.window_groups, encoder.group_size, sizes.model.backbone.hidden_size
    )
    found = sizes_of(Token2WavConfig(Path("."), sizes.flow, sizes.hift, TOKEN_HZ), ("voice",))
    return _profiles(found, options, sizes.model.features)


def built_profiles(folder: Path) -> dict[Path, Profile]:
    """Every graph of a built folder of any target, and its shapes on the largest GPU that there is a profile for."""
    options = Options.read(folder)
    sound = options.path(options.token2wav.dir)
    found = _profiles(Sizes.read(sound), options.encoder, options.features)
    return {
        options.path(options.encoder.graph) if name == ENCODER else sound / name: ranges
        for name, ranges in found.items()
    }


def _profiles(sizes: Sizes, encoder: EncoderOptions, features: FeatureConfig) -> dict[str, Profile]:
    sound = sound_options(max(profile.max_streams for profile in PROFILES.values()), is_apart=False)
    found = {ENCODER: encoder_profile(encoder, features)}
    for precision in STEP_GRAPHS:
        found |= plan_profiles(sizes, replace(sound, precision=precision))
    return found
