"""A matrix for few rows together with what stands before and after it: plain torch twin.

Ten small launches of a decoder layer become six. Whether that beats a library's matrices is for
``make bench-gpu`` to say, so it is an option.
"""

from __future__ import annotations

import torch

from kernels.decoder import rms_norm, swiglu
from kernels.linear import Matrix

FUSED_ROWS = 16  # more rows are left to a library


def fused_linear(
    x: torch.Tensor,
    matrix: Matrix,
    gain: torch.Tensor | None = None,
    eps: float = 0.0,
    residual: torch.Tensor | None = None,
    gated: bool = False,
) -> torch.Tensor:
    """Norm, matrix, SwiGLU and residual, each where it is asked for.

    Args:
        x: [rows, in]. gain: [in] of the norm before the matrix. eps: of the norm.
        residual: [rows, out] added at the end.
        gated: the matrix gives gate and up [rows, 2 * out], which become silu(gate) * up.

    Returns:
        [rows, out].
    """
    y = matrix(x if gain is None else rms_norm(x, gain, eps))
    y = swiglu(y) if gated else y
    return y if residual is None else residual + y
