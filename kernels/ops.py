"""The operations that models run on a device: Triton kernels, and their twins in plain torch."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import torch

from kernels import accept, choice, decoder, embedding, experts, flow, fused, paged_rows, token2wav
from kernels.accept import Answers, Rules
from kernels.choice import Choices
from kernels.experts import ExpertOps
from kernels.flow import FlowPages
from kernels.linear import Matrix
from kernels.paged_rows import Pool


class Ops(ExpertOps, Protocol):
    """Shapes and types are those of the twins, in the modules that ``twin_ops`` names."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor: ...

    def add_rms_norm(
        self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor: ...

    def rotate_and_store(
        self,
        mixed: torch.Tensor,
        norm: torch.Tensor,
        rope: torch.Tensor,
        pool: Pool,
        slots: torch.Tensor,
        positions: torch.Tensor,
        layer: int,
        eps: float,
    ) -> torch.Tensor: ...

    def attend_rows(
        self, q: torch.Tensor, pool: Pool, slots: torch.Tensor, positions: torch.Tensor, layer: int
    ) -> torch.Tensor: ...

    def attend_chunks(
        self,
        q: torch.Tensor,
        pool: Pool,
        slots: torch.Tensor,
        positions: torch.Tensor,
        tiles: torch.Tensor,
        layer: int,
    ) -> torch.Tensor: ...

    def group_embedding(
        self,
        table: torch.Tensor,
        ids: torch.Tensor,
        codebook: torch.Tensor,
        codes: torch.Tensor,
        fed: torch.Tensor,
        projection: Matrix,
    ) -> torch.Tensor: ...

    def add_embedding(self, rows: torch.Tensor, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor: ...

    def choose(
        self,
        scores: torch.Tensor,
        slots: torch.Tensor,
        choices: Choices,
        earlier: torch.Tensor | None,
        number: int,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor: ...

    def accept(self, state: Answers, rules: Rules, slots: torch.Tensor, found: torch.Tensor) -> None: ...

    def fused_linear(
        self,
        x: torch.Tensor,
        matrix: Matrix,
        gain: torch.Tensor | None = None,
        eps: float = 0.0,
        residual: torch.Tensor | None = None,
        gated: bool = False,
    ) -> torch.Tensor: ...

    def guided_step(
        self, x: torch.Tensor, velocity: torch.Tensor, width: torch.Tensor, guidance: float
    ) -> torch.Tensor: ...

    def snake(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor: ...

    def modulated_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        gate: torch.Tensor | None,
        scale: torch.Tensor,
        shift: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def pack_heads(self, mixed: torch.Tensor, rope: torch.Tensor, own: torch.Tensor) -> torch.Tensor: ...

    def attend_blocks(
        self, q: torch.Tensor, cache: torch.Tensor, own: torch.Tensor, pages: FlowPages
    ) -> torch.Tensor: ...


class _Table:
    """Functions of several modules under one name."""

    def __init__(self, *modules: ModuleType) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


def twin_ops() -> Ops:
    """Plain torch, on any device."""
    ops: Any = _Table(decoder, paged_rows, embedding, choice, accept, token2wav, fused, flow, experts)
    return ops


def kernel_ops() -> Ops:
    """Triton kernels. Raises ImportError where Triton is not installed."""
    from kernels.gpu import accept as gpu_accept
    from kernels.gpu import choice as gpu_choice
    from kernels.gpu import chunk_attention, flow_attention, rows_attention
    from kernels.gpu import decoder as gpu_decoder
    from kernels.gpu import embedding as gpu_embedding
    from kernels.gpu import experts as gpu_experts
    from kernels.gpu import flow as gpu_flow
    from kernels.gpu import fused as gpu_fused
    from kernels.gpu import token2wav as gpu_token2wav

    ops: Any = _Table(
        gpu_decoder, rows_attention, chunk_attention, gpu_embedding, gpu_choice, gpu_accept, gpu_token2wav, gpu_fused,
        gpu_flow, flow_attention, gpu_experts,
    )  # fmt: skip
    return ops
