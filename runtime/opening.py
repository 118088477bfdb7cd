"""From a built folder to the stages that its models run."""

from __future__ import annotations

from runtime.families.base import EncoderStage
from runtime.families.registry import encoder_of
from runtime.options import Options
from runtime.token2wav.build import build_flow, build_vocoder
from runtime.token2wav.flow.stage import FlowStage
from runtime.token2wav.vocoder.stage import VocoderStage


def open_encoder(options: Options, gpu: int = 0) -> EncoderStage:
    """The audio encoder of the folder's checkpoint.

    Args:
        options: of the folder.
        gpu: number of the GPU, where there is one.

    Raises:
        BuildError: a file is missing, or a plan is not the one that these options ask for.
    """
    model, encoder = options.path(options.model), options.encoder
    graph = options.path(encoder.graph)
    return encoder_of(model)(graph, model, encoder, options.features, options.sound_engine, options.threads, gpu)


def open_flow(options: Options, gpu: int = 0) -> FlowStage:
    """The flow, opened as ``open_encoder`` opens the encoder."""
    return build_flow(options.token2wav_folders, options.sound_engine, options.token2wav, gpu)


def open_vocoder(options: Options, gpu: int = 0) -> VocoderStage:
    """The vocoder, opened as ``open_encoder`` opens the encoder."""
    return build_vocoder(options.token2wav_folders, options.sound_engine, options.token2wav, gpu)
