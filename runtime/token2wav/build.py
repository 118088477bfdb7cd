"""From an exported folder to ready stages over ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from runtime.onnx_session import OnnxGraph
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
