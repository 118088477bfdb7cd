"""What a server launches but the comparisons beside do not: its widest rows, both stacks' heads, every tile.

A kernel is compiled anew for each of these, and the compiler takes other instructions for some of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.bed import ROWS, Bed, Pairs, choices_of
from benchmarks.gpu.flow_checks import flow_dtype, flow_pages
from benchmarks.gpu.stack_checks import STACKS

SPLITS = (1, 4)  # of the cached positions of a row
LONG_IDS = 8192 + 77  # at least, so that a tiny model takes the kernels of long rows too
GREEDY_TEXT, FEW_TEXT, ALL_TEXT = TEXT_SAMPLERS = (
    "text sampler, greedy", "text sampler, top-k and top-p", "text sampler, top-p",
)  # fmt: skip


def _splits(bed: Bed) -> Pairs:
    from kernels.gpu import rows_attention

    for name in STACKS:
        config = getattr(bed.sizes.model, name)
        args = (bed.rand(ROWS, config.num_heads, config.head_dim), *bed.rows(config), 1)
        expected = bed.twin.attend_rows(*args)
        for splits in SPLITS:
            yield f"attention of rows, {name}, splits: {splits}", rows_attention.attend_rows(*args, splits), expected


def _many_rows(bed: Bed) -> Pairs:
    """As many rows as fill a GPU without splits."""
    many = bed.sizes.compared[2]
    for name in STACKS:
        config = getattr(bed.sizes.model, name)
        args = (bed.rand(many, config.num_heads, config.head_dim), *bed.rows(config, many), 1)
        yield f"attention of {many} rows, {name}", bed.mine.attend_rows(*args), bed.twin.attend_rows(*args)


def _flow_tiles(bed: Bed) -> Pairs:
    """The largest call, every tile of queries; what lies behind valid frames is padding and differs."""
    from kernels.gpu import flow_attention

    dtype = flow_dtype(bed.dtype)
    args = flow_pages(bed.sizes, bed.device, dtype, *bed.sizes.largest_call)
    expected = bed.twin.attend_blocks(*args)
    frames = bed.sizes.flow.block_frames
    for rows in flow_attention.ROWS:
        if rows < 2 * frames:
            found = flow_attention.attend_blocks(*args, rows)
            yield f"attention of the flow, {rows} rows of {dtype}".replace("torch.", ""), found, expected


def _text(bed: Bed, name: str, dtype: torch.dtype, greedy: bool, top_k: int) -> Pairs:
    ids = max(bed.sizes.model.backbone.output_size, LONG_IDS)
    choices = choices_of(ids, bed.device, greedy, top_k)
    args = ((3 * torch.randn(ROWS, ids, device=bed.device)).to(dtype), bed.ints(list(range(ROWS))), choices, None, 5)
    yield name, bed.mine.choose(*args), bed.twin.choose(*args)


def _greedy_text(bed: Bed) -> Pairs:
    yield from _text(bed, GREEDY_TEXT, bed.dtype, True, 0)


def _few_text(bed: Bed) -> Pairs:
    """In float32: equal scores at the threshold would be kept together here and apart by the twin."""
    yield from _text(bed, FEW_TEXT, torch.float32, False, 50)


def _all_text(bed: Bed) -> Pairs:
    yield from _text(bed, ALL_TEXT, torch.float32, False, 0)


#: Like ``checks.COMPARISONS``: name -> comparison.
VARIANTS: dict[str, Callable[[Bed], Pairs]] = {
    "splits of attention": _splits, "attention of many rows": _many_rows, "tiles of the flow's attention": _flow_tiles,
    GREEDY_TEXT: _greedy_text, FEW_TEXT: _few_text, ALL_TEXT: _all_text,
}  # fmt: skip
