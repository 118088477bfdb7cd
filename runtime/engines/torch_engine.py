"""A Qwen3 decoder over the bindings of the TensorRT-LLM contract, in plain torch.

The engine of the ``cpu`` target and the reference of the others: it reads block tables, lengths and
pool pointers exactly as the compiled engine does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from kernels import experts
from kernels.experts import Experts, run_experts
from kernels.linear import Dense, filled
from runtime.checkpoint.decoder import DecoderConfig
from runtime.checkpoint.experts import ExpertSizes
from runtime.engines.base import EngineOutputs, EngineShape
from runtime.engines.torch_attention import attend, plan_last_rows, plan_pages, write_kv


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: projections fused as the engines fuse them (q, k, v and gate, up on the first axis).

    Of a layer with experts ``gate_up`` and ``down`` are those of all, one behind another, and ``router`` scores them.
    """

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qk_norm: torch.Tensor  # [heads + kv heads, head size]: both norms at once
    out: torch.Tensor
    post_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    router: torch.Tensor | None = None


def fuse_layer(
    weights: Mapping[str, torch.Tensor], prefix: str, config: DecoderConfig, sizes: ExpertSizes | None = None
) -> LayerWeights:
    """The layer whose tensors begin with ``prefix`` (Hugging Face names)."""

    def get(name: str) -> torch.Tensor:
        return weights[f"{prefix}{name}.weight"]

    norms = [
        get("self_attn.q_norm").expand(config.num_heads, -1),
        get("self_attn.k_norm").expand(config.num_kv_heads, -1),
    ]
    mlps = ["mlp"] if sizes is None else [f"mlp.experts.{expert}" for expert in range(sizes.count)]
    down = [get(f"{mlp}.down_proj") for mlp in mlps]
    return LayerWeights(
        input_norm=get("input_layernorm"),
        qkv=torch.cat([get(f"self_attn.{part}_proj") for part in "qkv"]),
        qk_norm=torch.cat(norms),
        out=get("self_attn.o_proj"),
        post_norm=get("post_attention_layernorm"),
        gate_up=torch.cat([get(f"{mlp}.{part}_proj") for mlp in mlps for part in ("gate", "up")]),
        down=down[0] if sizes is None else torch.cat(down),
        router=None if sizes is None else get("mlp.gate"),
    )


class TorchEngine:
    """Implements ``runtime.engines.base.Engine``.

    Args:
        config: sizes of the stack.
        shape: sizes of pool and batch.
        weights: Hugging Face names to tensors; ``prefix`` is what stands before ``layers.N``.
        head: matrices applied one after another to the last row of each sequence.
        last_only: ``hidden_states`` are wanted for the last row of each sequence only, [sequences, hidden].
    """

    def __init__(
        self,
        config: DecoderConfig,
        shape: EngineShape,
        weights: Mapping[str, torch.Tensor],
        prefix: str,
        head: Sequence[torch.Tensor],
        last_only: bool = False,
    ) -> None:
        self.config, self.shape, self._last_only = config, shape, last_only
        self._queries = config.num_heads // config.num_kv_heads
        self._layers = [
            fuse_layer(weights, f"{prefix}layers.{i}.", config, config.experts_of(i)) for i in range(config.num_layers)
        ]
        self._norm = weights[f"{prefix}norm.weight"]
        self._head = list(head)
        self._pool = torch.zeros(shape.pool_shape, dtype=self._norm.dtype, device=self._norm.device)
        frequencies = config.rope_theta ** (
            -torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
        )
        angles = torch.outer(torch.arange(shape.max_seq_len, dtype=torch.float32), frequencies)
        angles = torch.cat([angles, angles], dim=-1)  # [positions, head size]
        # [positions, 2, head size]; rounded like the rows that it turns, as the authors' code does.
        self._rope = torch.stack([angles.cos(), angles.sin()], dim=1).to(self._norm.dtype)

    def pool_address(self) -> int:
        """Address of the KV pool."""
        return self._pool.data_ptr()

    def copy_block(self, source: int, target: int) -> None:
        self._pool[target].copy_(self._pool[source])

    def scrub(self, blocks: Sequence[int]) -> None:
        self._pool[list(blocks)] = 0

    @torch.inference_mode()
    def run(self, inputs_embeds: torch.Tensor, bindings: Mapping[str, np.ndarray]) -> EngineOutputs:
        assert bindings["host_kv_cache_pool_pointers"][0, 0] == self.pool_address(), "bindings of another engine"
        plan, rows = plan_pages(dict(bindings), self.shape, self._queries), len(inputs_embeds)
        cos, sin = filled(self._rope[plan.positions]).unsqueeze(2).unbind(1)  # [rows, 1, head size] each
        last_rows = None
        if plan.contexts:
            last_rows = torch.from_numpy(bindings["last_token_ids"].astype(np.int64) - 1)
        hidden = filled(inputs_embeds)
        for number, layer in enumerate(self._layers):
            q, kv = self._project(self._rms(hidden, layer.input_norm), layer, cos, sin)
            write_kv(self._pool, plan, number, kv[:rows])
            if self._last_only and last_rows is not None and number + 1 == len(self._layers):
                # What the other rows would become is not read: their K and V were all they had to give.
                q, hidden, rows = q[last_rows], filled(hidden[last_rows]), len(last_rows)
                plan = plan_last_rows(dict(bindings), self.shape, self._queries)
                last_rows = None
            hidden = hidden + F.linear(filled(attend(q[:rows], self._pool, plan, number)), layer.out)
            hidden = hidden + self._mlp(self._rms(hidden, layer.post_norm), layer, rows)
        hidden = self._rms(hidden, self._norm)
        last = hidden if last_rows is None else filled(hidden[last_rows])
        for matrix in self._head:
            last = F.linear(last, matrix)
        return EngineOutputs(hidden_states=hidden[:rows], logits=last[: len(bindings["last_token_ids"])].float())

    def _mlp(self, x: torch.Tensor, layer: LayerWeights, rows: int) -> torch.Tensor:
        if layer.router is None:
            gate, up = F.linear(x, layer.gate_up).chunk(2, dim=-1)
            return F.linear(F.silu(gate) * up, layer.down)
        sizes = self.config.experts
        assert sizes is not None
        mixture = Experts(layer.router, Dense(layer.gate_up), Dense(layer.down), sizes.taken, sizes.normalised)
        return filled(run_experts(experts, x[:rows], mixture))  # padding takes no experts

    def _project(
        self, x: torch.Tensor, layer: LayerWeights, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotated queries [rows, heads, head size]; keys and values [rows, 2, kv heads, head size]."""
        config = self.config
        mixed = F.linear(x, layer.qkv).view(len(x), -1, config.head_dim)
        turned = config.num_heads + config.num_kv_heads
        qk, v = mixed[:, :turned], mixed[:, turned:]
        qk = self._rms(qk, layer.qk_norm)
        half = config.head_dim // 2
        rotated = torch.cat([-qk[..., half:], qk[..., :half]], dim=-1)
        qk = torch.addcmul(qk * cos, rotated, sin)
        return qk[:, : config.num_heads], torch.stack([qk[:, config.num_heads :], v], dim=1)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scaled = x.float()
        scaled = scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return weight * scaled.to(x.dtype)
