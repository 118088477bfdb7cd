"""Embeddings on the way into both stacks: plain torch twins of the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.linear import Matrix


def mean_rows(table: torch.Tensor, codes: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
    """Mean of each row's group of embeddings [rows, width]; zeros where ``fed`` is not set.

    Args:
        table: [codes, width]. codes: [rows, group] int64. fed: [rows] bool.
    """
    return F.embedding(codes, table).mean(dim=1) * fed[:, None].to(table.dtype)


def mix_text(table: torch.Tensor, ids: torch.Tensor, spoken: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
    """Text embeddings [rows, width], averaged with ``spoken`` [rows, width] where ``fed`` [rows] is set."""
    text = F.embedding(ids, table)
    return torch.where(fed[:, None], (text + spoken) / 2, text)


def add_embedding(rows: torch.Tensor, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """rows [n, width], of any stride between rows, + table[ids]."""
    return rows + F.embedding(ids, table)


def group_embedding(
    table: torch.Tensor,
    ids: torch.Tensor,
    codebook: torch.Tensor,
    codes: torch.Tensor,
    fed: torch.Tensor,
    projection: Matrix,
) -> torch.Tensor:
    """Backbone rows of generating streams [rows, width]: text, averaged with the last group where it is fed back."""
    return mix_text(table, ids, projection(mean_rows(codebook, codes, fed)), fed)
