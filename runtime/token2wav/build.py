"""From a built folder to ready stages: over ONNX Runtime, or on a GPU over torch or compiled plans."""

from __future__ import annotations

from pathlib import Path

from runtime.graphs.memory import HostMemory, Memory, TorchMemory
from runtime.graphs.onnx import OnnxGraph
from runtime.graphs.options import ONNX, TORCH
from runtime.graphs.shapes import Profile
from runtime.token2wav.chunks import Graph
from runtime.token2wav.flow.stage import FlowStage, read_voice_vectors
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
from runtime.token2wav.noise import Noise, Windows
from runtime.token2wav.options import Token2WavOptions
from runtime.token2wav.shapes import front_profile, step_profile, vocoder_profile
from runtime.token2wav.vocoder.stage import VocoderStage


def build_flow(folders: tuple[Path, Path], engine: str, sound: Token2WavOptions, gpu: int = 0) -> FlowStage:
    """The flow of a rendered folder.

    Args:
        folders: what was exported, and the checkpoint with the weights.
        engine: what runs it: ONNX, TORCH or TENSORRT.
        gpu: number of the GPU, where there is one.

    Raises:
        BuildError: a file is missing, or a plan is not the one that these options ask for.
    """
    folder, weights = folders
    if engine == ONNX:
        return onnx_flow(folder, sound.threads, sound.max_streams, sound.window, sound.full_attention, sound.precision)
    if engine == TORCH:
        from runtime.graphs.executor import gpu_device  # late: it needs torch
        from runtime.token2wav.device_build import device_flow

        flow = device_flow(folder, weights, gpu_device(gpu), sound.max_streams, sound.window, sound.precision)
        flow.prepare(sound.max_batch)
        return flow
    profiles, memory = plan_profiles(Sizes.read(folder), sound), _device_memory(gpu)
    front, step = (_open_plan(folder, name, profiles, memory) for name in (FRONT_GRAPH, STEP_GRAPHS[sound.precision]))
    return _flow(folder, front, step, sound.max_streams, sound.window, False, sound.precision, memory)


def build_vocoder(folders: tuple[Path, Path], engine: str, sound: Token2WavOptions, gpu: int = 0) -> VocoderStage:
    """The vocoder of a rendered folder, opened as the flow is."""
    folder, weights = folders
    if engine == ONNX:
        return onnx_vocoder(folder, sound.threads, sound.max_streams)
    if engine == TORCH:
        from runtime.graphs.executor import gpu_device  # late: it needs torch
        from runtime.token2wav.device_build import device_vocoder

        device = gpu_device(gpu)
        return device_vocoder(folder, weights, device, sound.max_streams, sound.max_batch, sound.engine)
    profiles, memory = plan_profiles(Sizes.read(folder), sound), _device_memory(gpu)
    return _vocoder(folder, _open_plan(folder, VOCODER_GRAPH, profiles, memory), sound.max_streams, memory)


def plan_profiles(sizes: Sizes, options: Token2WavOptions) -> dict[str, Profile]:
    """Every graph file that is compiled for these options, and the shapes that it is compiled for."""
    return {
        FRONT_GRAPH: front_profile(sizes, options.max_batch),
        STEP_GRAPHS[options.precision]: step_profile(sizes, options.max_batch, options.max_streams, options.window),
        VOCODER_GRAPH: vocoder_profile(sizes, options.max_batch),
    }


def onnx_flow(
    folder: Path,
    threads: int,
    max_streams: int,
    window: int = DEFAULT_WINDOW,
    full_attention: bool = False,
    precision: str = "float32",
) -> FlowStage:
    """The flow of an exported folder over ONNX Runtime.

    Args:
        threads: of each graph.
        max_streams: most streams with state.
        window: blocks that a frame sees before its own.
        full_attention: as the authors' demo server, see ``hops``.
        precision: of products and caches, a key of ``layout.STEP_GRAPHS``.
    """
    front, step = (OnnxGraph(folder / name, threads).run for name in (FRONT_GRAPH, STEP_GRAPHS[precision]))
    return _flow(folder, front, step, max_streams, window, full_attention, precision, HostMemory())


def onnx_vocoder(folder: Path, threads: int, max_streams: int) -> VocoderStage:
    """The vocoder of an exported folder over ONNX Runtime."""
    return _vocoder(folder, OnnxGraph(folder / VOCODER_GRAPH, threads).run, max_streams, HostMemory())


def _flow(
    folder: Path,
    front: Graph,
    step: Graph,
    max_streams: int,
    window: int,
    full_attention: bool,
    precision: str,
    memory: Memory,
) -> FlowStage:
    return FlowStage(
        sizes=Sizes.read(folder),
        front=front,
        step=step,
        voices=read_voice_vectors(folder / VOICES),
        mel_noise=Noise(folder / MEL_NOISE, axis=1),
        max_streams=max_streams,
        window=window,
        full_attention=full_attention,
        cache_type=precision,
        memory=memory,
    )


def _vocoder(folder: Path, graph: Graph, max_streams: int, memory: Memory) -> VocoderStage:
    return VocoderStage(Sizes.read(folder), graph, _source_noise(folder, memory), max_streams, memory)


def _source_noise(folder: Path, memory: Memory) -> Windows:
    noise = Noise(folder / SOURCE_NOISE, axis=0)
    if not isinstance(memory, TorchMemory):
        return noise
    from runtime.token2wav.flow.device_noise import DeviceNoise  # late: it needs torch

    return DeviceNoise(noise, memory)


def _device_memory(gpu: int) -> TorchMemory:
    return TorchMemory(f"cuda:{gpu}")


def _open_plan(folder: Path, graph: str, profiles: dict[str, Profile], memory: TorchMemory) -> Graph:
    from runtime.graphs.plan import PLAN_SUFFIX, open_plan  # late: it needs torch

    return open_plan((folder / graph).with_suffix(PLAN_SUFFIX), profiles[graph], memory).run
