"""Flow and vocoder of a CosyVoice3 directory as torch modules on a device, behind the same stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kernels.ops import Ops
from runtime.graphs.device import ops_for
from runtime.graphs.executor import Executor, executor_for
from runtime.graphs.options import TORCH
from runtime.graphs.recorded import DeviceGraph
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.device_cache import DeviceFlowCache
from runtime.token2wav.flow.device_stage import DeviceFlowStage, FlowWork
from runtime.token2wav.flow.device_step import DeviceStep
from runtime.token2wav.flow.net import EulerStep, Flow, FlowFront
from runtime.token2wav.flow.stage import read_voice_vectors
from runtime.token2wav.layout import MEL_NOISE, SOURCE_NOISE, VOCODER_GRAPH, VOICES, Sizes
from runtime.token2wav.noise import Noise
from runtime.token2wav.shapes import vocoder_profile
from runtime.token2wav.vocoder.blocks import Snake
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.vocoder.recorded_sizes import vocoder_calls, vocoder_rule
from runtime.token2wav.vocoder.stage import VocoderStage
from runtime.token2wav.weights import load_module

FLOW_FILE, VOCODER_FILE = "flow.pt", "hift.pt"


def assemble_flow(
    flow: Flow,
    sizes: Sizes,
    voices: dict[str, np.ndarray],
    noise: Noise,
    executor: Executor,
    max_streams: int,
    window: int,
    precision: str,
    ops: Ops | None = None,
) -> DeviceFlowStage:
    """The stage over a flow that is still on the CPU: its tables of modulations are made there, as for the export.

    Args:
        flow: its weights are taken out of it.
        precision: of products and caches; all else is float32.
        ops: what the device runs; by default what it runs best.
    """
    dtype, device, ops = getattr(torch, precision), executor.device, ops or ops_for(executor.device)
    flow.estimator.lower(dtype)
    step = DeviceStep(EulerStep(flow), ops).eval()
    cache = DeviceFlowCache(sizes, max_streams, window, dtype, device)
    work = FlowWork(sizes, FlowFront(flow).eval().to(device), step.to(device), cache)
    return DeviceFlowStage(sizes, work, cache, executor, voices, noise, max_streams)


def device_flow(
    folder: Path,
    cosyvoice: Path,
    device: torch.device | str,
    max_streams: int,
    window: int,
    precision: str = "float16",
    executor: Executor | None = None,
) -> DeviceFlowStage:
    """The flow of an exported folder, with weights of ``cosyvoice``. Raises BuildError."""
    executor = executor or executor_for(torch.device(device))
    flow = load_module(Flow(Token2WavConfig.read(cosyvoice).flow), cosyvoice / FLOW_FILE)
    voices, noise = read_voice_vectors(folder / VOICES), Noise(folder / MEL_NOISE, axis=1)
    return assemble_flow(flow, Sizes.read(folder), voices, noise, executor, max_streams, window, precision)


def vocoder_graph(vocoder: Vocoder, executor: Executor, ops: Ops) -> DeviceGraph:
    """A vocoder that lies on the executor's device, float32 throughout: the pitch net demands it."""
    for module in vocoder.modules():
        if isinstance(module, Snake):
            module.snake = ops.snake
    return DeviceGraph(executor, vocoder, ("audio", "f0"), vocoder_rule(vocoder.config.frame_samples))


def device_vocoder(
    folder: Path,
    cosyvoice: Path,
    device: torch.device | str,
    max_streams: int,
    rows: int = 0,
    engine: str = TORCH,
    executor: Executor | None = None,
) -> VocoderStage:
    """The vocoder of an exported folder, its graph or the weights of ``cosyvoice`` in torch.

    Args:
        rows: every size of calls of so many chunks is recorded now; 0: each when it is first needed.
        engine: see ``Token2WavOptions``.

    Raises:
        BuildError: a file is missing, or there is no such engine here.
    """
    from runtime.graphs.onnx_cuda import onnx_graph, prefers_onnx  # late: the bench runs where there is no ONNX Runtime

    executor, sizes = executor or executor_for(torch.device(device)), Sizes.read(folder)
    if prefers_onnx("token2wav.engine", engine):
        graph = onnx_graph(folder / VOCODER_GRAPH, executor.device, vocoder_rule(sizes.frame_samples))
    else:
        vocoder = load_module(Vocoder(Token2WavConfig.read(cosyvoice).hift), cosyvoice / VOCODER_FILE)
        graph = vocoder_graph(vocoder.to(executor.device), executor, ops_for(executor.device))
    if rows:
        graph.prepare(vocoder_calls(vocoder_profile(sizes, rows), sizes.frame_samples))
    return VocoderStage(sizes, graph.run, Noise(folder / SOURCE_NOISE, axis=0), max_streams)
