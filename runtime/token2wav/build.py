"""From an exported folder to ready stages: over ONNX Runtime, or on a GPU where the target says so."""

from __future__ import annotations

from pathlib import Path

from runtime.engines.options import CUDA
from runtime.errors import BuildError
from runtime.onnx_session import CUDA_PROVIDER, OnnxGraph, has_provider
from runtime.options import Options
from runtime.token2wav.flow_stage import FlowStage, read_voice_vectors
from runtime.token2wav.layout import (
    DEFAULT_WINDOW,
    FRONT_GRAPH,
    MEL_NOISE,
    SOURCE_NOISE,
    STEP_GRAPHS,
    VOCODER_GRAPH,
    VOICES,
    Sizes,
)
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder_stage import VocoderStage


def build_flow(
    folder: Path,
    threads: int,
    max_streams: int,
    window: int = DEFAULT_WINDOW,
    full_attention: bool = False,
    precision: str = "float32",
) -> FlowStage:
    """The flow of an exported folder.

    Args:
        threads: of each graph.
        max_streams: most streams with state.
        window: blocks that a frame sees before its own.
        full_attention: as the authors' demo server, see ``hops``.
        precision: of products and caches, a key of ``layout.STEP_GRAPHS``.
    """
    return FlowStage(
        sizes=Sizes.read(folder),
        front=OnnxGraph(folder / FRONT_GRAPH, threads).run,
        step=OnnxGraph(folder / STEP_GRAPHS[precision], threads).run,
        voices=read_voice_vectors(folder / VOICES),
        mel_noise=Noise(folder / MEL_NOISE, axis=1),
        max_streams=max_streams,
        window=window,
        full_attention=full_attention,
        cache_type=precision,
    )


def build_vocoder(folder: Path, threads: int, max_streams: int) -> VocoderStage:
    """The vocoder of an exported folder."""
    graph = OnnxGraph(folder / VOCODER_GRAPH, threads).run
    return VocoderStage(Sizes.read(folder), graph, Noise(folder / SOURCE_NOISE, axis=0), max_streams)


def flow_for(options: Options, gpu: int) -> FlowStage:
    """The flow of a rendered folder. On target cuda it is always torch: its caches must not leave the GPU.

    Args:
        gpu: number of the GPU that the model was placed on; not used on target cpu.

    Raises:
        BuildError: the target cannot do what the options ask for.
    """
    sound, folder = options.token2wav, options.path(options.token2wav.dir)
    if options.target != CUDA:
        return build_flow(folder, sound.threads, sound.max_streams, sound.window, sound.full_attention)
    if sound.full_attention:
        raise BuildError("token2wav.full_attention", "is not offered on target cuda", "use the target cpu to compare")
    from runtime.token2wav.device_build import device_flow, gpu_device

    checkpoint = options.path(sound.checkpoint)
    return device_flow(folder, checkpoint, gpu_device(gpu), sound.max_streams, sound.window)


def vocoder_for(options: Options, gpu: int) -> VocoderStage:
    """The vocoder of a rendered folder; see ``flow_for``. ONNX Runtime's CUDA provider is used where installed."""
    sound, folder = options.token2wav, options.path(options.token2wav.dir)
    if options.target != CUDA or has_provider(CUDA_PROVIDER):
        return build_vocoder(folder, sound.threads, sound.max_streams)
    from runtime.token2wav.device_build import device_vocoder, gpu_device

    return device_vocoder(folder, options.path(sound.checkpoint), gpu_device(gpu), sound.max_streams)
