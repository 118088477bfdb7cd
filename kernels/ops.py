"""The operations that models run on a device: Triton kernels, and their twins in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from kernels import accept, choice, decoder, embedding, experts, flow, fused, paged_rows, token2wav


class Ops:
    """The twins. Kernels take their places one by one, with the same shapes and types."""

    rms_norm = staticmethod(decoder.rms_norm)
    add_rms_norm = staticmethod(decoder.add_rms_norm)
    swiglu = staticmethod(decoder.swiglu)
    rotate_and_store = staticmethod(decoder.rotate_and_store)
    attend_rows = staticmethod(paged_rows.attend_rows)
    attend_chunks = staticmethod(paged_rows.attend_chunks)
    group_embedding = staticmethod(embedding.group_embedding)
    add_embedding = staticmethod(embedding.add_embedding)
    choose = staticmethod(choice.choose)
    accept = staticmethod(accept.accept)
    guided_step = staticmethod(token2wav.guided_step)
    snake = staticmethod(token2wav.snake)
    fused_linear = staticmethod(fused.fused_linear)
    modulated_norm = staticmethod(flow.modulated_norm)
    pack_heads = staticmethod(flow.pack_heads)
    attend_blocks = staticmethod(flow.attend_blocks)
    route = staticmethod(experts.route)
    group_pairs = staticmethod(experts.group_pairs)
    grouped_product = staticmethod(experts.grouped_product)
    mix_experts = staticmethod(experts.mix_experts)


def twin_ops() -> Ops:
    """Plain torch, on any device."""
    return Ops()


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

    modules = (
        gpu_decoder, rows_attention, chunk_attention, gpu_embedding, gpu_choice, gpu_accept, gpu_token2wav, gpu_fused,
        gpu_flow, flow_attention, gpu_experts,
    )  # fmt: skip
    functions = {name: _function(name, modules) for name in vars(Ops) if not name.startswith("_")}
    ops: Ops = type("KernelOps", (Ops,), functions)()
    return ops


def _function(name: str, modules: Sequence[ModuleType]) -> staticmethod:
    return staticmethod(next(getattr(module, name) for module in modules if hasattr(module, name)))
