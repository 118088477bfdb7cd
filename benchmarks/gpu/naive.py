"""The baseline: the same weights, step by step as a plain implementation has them.

Its matrices are ours too, quantised ones with their kernels where those were asked for (``baseline``).
Eager torch, a growing cache that is concatenated in every layer, norms and rotary as separate operations,
sampling with sorts and a host synchronisation per code: the way a Hugging Face style model runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.decoder import rms_norm, swiglu
from runtime.engines.kernel_stack import DecoderStack
from runtime.families.fun_audio_chat.steps import FrameSteps

TEMPERATURE, TOP_P, PENALTY = 0.8, 0.9, 1.2


def baseline(linear: str) -> str:
    """What the baseline is, with an option ``linear``."""
    same = "the same dense matrices" if linear == "dense" else f"our {linear} matrices and their kernels"
    return f"eager torch, a step at a time, with {same}"


class NaiveStack:
    """One position of every row after ``length`` cached ones, which are zeros."""

    def __init__(self, stack: DecoderStack, rows: int, length: int) -> None:
        config, memory = stack.config, stack.memory
        self._stack, self._length = stack, length
        shape = (rows, config.num_kv_heads, length, config.head_dim)
        self._caches = [torch.zeros(2, *shape, dtype=memory.dtype, device=memory.device) for _ in stack.layers]

    def __call__(self, x: torch.Tensor, extra: int = 0) -> torch.Tensor:
        """[rows, hidden] to [rows, hidden] after the final norm; ``extra`` positions have been added meanwhile."""
        config, eps = self._stack.config, self._stack.config.rms_norm_eps
        heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        cos, sin = self._stack._rope[self._length + extra]
        for layer, cache in zip(self._stack.layers, self._caches, strict=True):
            mixed = layer.qkv(rms_norm(x, layer.input_norm, eps)).view(len(x), -1, dim)
            q, k, v = mixed.split([heads, kv_heads, kv_heads], dim=1)
            q, k = (rms_norm(a, w, eps) for a, w in zip((q, k), layer.qk_norm.split([heads, kv_heads]), strict=True))
            q, k = (a * cos + torch.cat([-a[..., dim // 2 :], a[..., : dim // 2]], dim=-1) * sin for a in (q, k))
            keys, values = (torch.cat([old, new[:, :, None]], dim=2) for old, new in zip(cache, (k, v), strict=True))
            keys, values = (a.repeat_interleave(heads // kv_heads, dim=1) for a in (keys, values))
            mixed = F.scaled_dot_product_attention(q[:, :, None], keys, values)
            x = x + layer.out(mixed.flatten(1))
            x = x + layer.down(swiglu(layer.gate_up(rms_norm(x, layer.post_norm, eps))))
        return rms_norm(x, self._stack._norm, eps)


class NaiveFrames:
    """Backbone step, group, and both, of rows that have ``length`` cached positions each."""

    def __init__(self, steps: FrameSteps, rows: int, length: int) -> None:
        self._weights, self._group = steps.weights, steps.state.sizes.speech_ids.group_size
        self._backbone = NaiveStack(steps.backbone_stack.stack, rows, length)
        self._speech = NaiveStack(steps.speech_stack.stack, rows, length * self._group)
        device = steps.state.hidden.device
        self._ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self._codes = torch.zeros(rows, self._group, dtype=torch.int64, device=device)
        self._hidden = steps.state.hidden[:1].expand(rows, -1).clone()

    @torch.inference_mode()
    def backbone(self) -> list[int]:
        """A text id of every row."""
        w = self._weights
        text = F.embedding(self._ids, w.text)
        spoken = w.feedback(F.embedding(self._codes, w.codebook).mean(dim=1))
        self._hidden = self._backbone((text + spoken) / 2)
        chosen: list[int] = w.text_head(self._hidden).float().argmax(dim=-1).tolist()
        return chosen

    @torch.inference_mode()
    def speech(self) -> list[list[int]]:
        """A group of every row."""
        w, previous, made = self._weights, self._codes[:, -1], []
        rows = self._hidden + F.embedding(self._ids, w.text)
        spread = (w.spread(rows) + w.spread_bias).view(len(rows), self._group, -1)
        for number in range(self._group):
            logits = self._speech(w.narrow(spread[:, number] + F.embedding(previous, w.codebook)), number)
            for matrix in w.speech_head:
                logits = matrix(logits)
            previous = self._sample(logits.float(), self._codes)
            made.append(previous.tolist())
        return made

    def _sample(self, scores: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        picked = scores.gather(1, seen)
        scores = scores.scatter(1, seen, torch.where(picked < 0, picked * PENALTY, picked / PENALTY)) / TEMPERATURE
        ordered, order = scores.sort(dim=-1)
        removed = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - TOP_P
        removed[:, -1] = False
        scores = scores.masked_fill(removed.scatter(1, order, removed), -torch.inf)
        return torch.multinomial(scores.softmax(dim=-1), 1)[:, 0]

    def frame(self) -> None:
        """Both."""
        self.backbone()
        self.speech()
