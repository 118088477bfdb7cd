"""Flow and vocoder of a CosyVoice3 directory as torch modules on a device, behind the same stages."""

from __future__ import annotations

from pathlib import Path

import torch

from kernels.ops import Ops, ops_for
from runtime.device_graphs import DeviceGraph, vocoder_shapes
from runtime.frames.executor import Executor, executor_for
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.device_cache import DeviceFlowCache
from runtime.token2wav.device_flow import DeviceFlowStage, FlowWork
from runtime.token2wav.flow import EulerStep, Flow, FlowFront
from runtime.token2wav.flow_stage import read_voice_vectors
from runtime.token2wav.layout import MEL_NOISE, SOURCE_NOISE, VOICES, Sizes
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder import Snake, Vocoder
from runtime.token2wav.vocoder_stage import VocoderStage
from runtime.token2wav.weights import load_module

FLOW_FILE, VOCODER_FILE = "flow.pt", "hift.pt"


def flow_work(
    flow: Flow, sizes: Sizes, streams: int, window: int, precision: torch.dtype, ops: Ops
) -> tuple[FlowWork, DeviceFlowCache]:
    """Modules and caches on the device of ``flow``.

    Args:
        precision: of products and caches; all else is float32.
    """
    step = EulerStep(flow).eval()
    step.estimator.lower(precision)
    step.guided_step = ops.guided_step
    device = flow.input_embedding.weight.device
    cache = DeviceFlowCache(sizes, streams, window, precision, device)
    return FlowWork(sizes, FlowFront(flow).eval(), step.to(device), cache), cache


def device_flow(
    folder: Path,
    cosyvoice: Path,
    device: torch.device,
    max_streams: int,
    window: int,
    precision: str = "float16",
    executor: Executor | None = None,
) -> DeviceFlowStage:
    """The flow of an exported folder, with weights of ``cosyvoice``. Raises BuildError."""
    sizes, config = Sizes.read(folder), Token2WavConfig.read(cosyvoice)
    # The tables of modulations are made on the CPU, as for the exported graph.
    flow = load_module(Flow(config.flow), cosyvoice / FLOW_FILE)
    step = EulerStep(flow).eval()
    step.estimator.lower(getattr(torch, precision))
    step.guided_step = ops_for(device).guided_step
    cache = DeviceFlowCache(sizes, max_streams, window, getattr(torch, precision), device)
    work = FlowWork(sizes, FlowFront(flow).eval().to(device), step.to(device), cache)
    voices, noise = read_voice_vectors(folder / VOICES), Noise(folder / MEL_NOISE, axis=1)
    return DeviceFlowStage(sizes, work, cache, executor or executor_for(device), voices, noise, max_streams)


def vocoder_graph(vocoder: Vocoder, executor: Executor, ops: Ops) -> DeviceGraph:
    """A vocoder that lies on the executor's device, float32 throughout: the pitch net demands it."""
    for module in vocoder.modules():
        if isinstance(module, Snake):
            module.snake = ops.snake
    return DeviceGraph(executor, vocoder, ("audio", "f0"), vocoder_shapes(vocoder.config.frame_samples))


def device_vocoder(
    folder: Path, cosyvoice: Path, device: torch.device, max_streams: int, executor: Executor | None = None
) -> VocoderStage:
    """The vocoder of an exported folder, with weights of ``cosyvoice``. Raises BuildError."""
    vocoder = load_module(Vocoder(Token2WavConfig.read(cosyvoice).hift), cosyvoice / VOCODER_FILE).to(device)
    graph = vocoder_graph(vocoder, executor or executor_for(device), ops_for(device))
    return VocoderStage(Sizes.read(folder), graph.run, Noise(folder / SOURCE_NOISE, axis=0), max_streams)
