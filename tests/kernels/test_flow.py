"""Operations of the flow's transformer against their twins, and the twins against the block that is exported."""

import pytest
import torch

from kernels import flow
from kernels.flow import FlowPages, gather_blocks
from kernels.gpu import flow as gpu
from kernels.gpu import flow_attention
from runtime.token2wav.flow.past import additive, rotary, visible_frames

EPS, NAN = 1e-6, float("nan")
# streams, own blocks, heads, head size, block frames
SHAPES = [(1, 1, 1, 16, 1), (1, 2, 1, 16, 6), (2, 3, 3, 24, 10), (3, 1, 2, 64, 50), (1, 1, 2, 8, 70)]
SLOTS, WINDOW = 3, 2


def close(found, expected, dtype):
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


def types(half):
    return torch.float32, half


@pytest.mark.parametrize("rows,width", [(1, 64), (7, 80), (3, 1024)])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_norm(device, half, rows, width, add, exact):
    dtype = torch.float32 if exact else half
    x = 3 + 2 * torch.randn(rows, width, device=device)
    delta = torch.randn(rows, width, device=device).to(dtype) if add else None
    gate, scale, shift = torch.randn(3, width, device=device)
    arguments = x, delta, gate if add else None, scale, shift, EPS, dtype
    kept = x.clone()
    (residual, normed), (expected, rest) = gpu.modulated_norm(*arguments), flow.modulated_norm(*arguments)
    assert residual.dtype == torch.float32 and normed.dtype == dtype and torch.equal(x, kept)
    close(residual, expected, torch.float32)
    close(normed, rest, dtype)
    by_hand = (kept + gate * delta.float() if add else kept).double()
    by_hand = (by_hand - by_hand.mean(1, keepdim=True)) / (by_hand.var(1, correction=0, keepdim=True) + EPS).sqrt()
    close(rest, by_hand * (1 + scale) + shift, dtype)


@pytest.mark.parametrize("streams,blocks,heads,dim,frames", SHAPES)
@pytest.mark.parametrize("exact", [True, False])
def test_heads_are_turned_and_packed(device, half, streams, blocks, heads, dim, frames, exact):
    dtype, length = torch.float32 if exact else half, blocks * frames
    mixed = torch.randn(2 * streams * length, 3 * heads * dim, device=device).to(dtype)
    positions = frames * torch.randint(9, (streams, 1), device=device) + torch.arange(length, device=device)
    rope = rotary(positions, 0.3 ** torch.arange(dim // 2, device=device))
    found, expected = torch.full((2, streams * blocks, 2, 2, heads, frames, dim), NAN, device=device).to(dtype)
    close(gpu.pack_heads(mixed, rope, found), flow.pack_heads(mixed, rope, expected), dtype)
    close(found, expected, dtype)
    # Values are where the caches expect them: guidance row, stream, block, frame.
    values = mixed.view(2, streams, blocks, frames, 3, heads, dim)[..., 2, :, :]
    assert torch.equal(found[:, :, 1], values.permute(1, 2, 0, 4, 3, 5).flatten(0, 1))


class Case:
    """Streams with full, partly filled and empty tables; a NaN wherever no row may look."""

    def __init__(self, device, dtype, streams, blocks, heads, dim, frames, full=False):
        self.frames, self.blocks = frames, blocks
        length, rows = blocks * frames, streams * SLOTS
        cache = torch.randn(rows + 1, 2, 2, heads, frames, dim).to(dtype)
        own = torch.randn(streams * blocks, 2, 2, heads, frames, dim).to(dtype)
        order = torch.randperm(rows).view(streams, SLOTS)
        tables, numbers, first, valid = [], [], [], []
        for stream in range(streams):
            held = SLOTS if full else (SLOTS - 1, 0, SLOTS)[stream % 3]
            begin = held + stream  # blocks before the call
            mine = [begin - 1 - (begin - 1 - slot) % SLOTS if begin > slot else -1 for slot in range(held)]
            numbers.append(mine + [-1] * (SLOTS - held))
            tables.append(order[stream].tolist()[:held] + [rows] * (SLOTS - held))
            first.append(begin * frames)
            valid.append(length if full else length - (stream + 1) % frames)
        cache[rows] = NAN
        known = {
            row
            for line, kinds in zip(tables, numbers, strict=True)
            for row, kind in zip(line, kinds, strict=True)
            if kind >= 0
        }
        for row in set(range(rows)) - known:
            cache[row] = NAN
        flat = own.unflatten(0, (streams, blocks))
        for stream in range(streams):
            for frame in range(valid[stream], length):
                flat[stream, frame // frames, ..., frame % frames, :] = NAN
        self.q = (torch.randn(2 * streams, length, heads, dim) * dim**-0.5).to(dtype).to(device)
        self.cache, self.own = cache.to(device), own.to(device)
        made = (torch.tensor(values, device=device) for values in (tables, numbers, first, valid))
        self.pages = FlowPages(*made, WINDOW)

    def exported(self):
        """The attention of ``dit.Block`` over the mask of the exported step; without a NaN anywhere."""
        pages, streams = self.pages, len(self.pages.first)
        own = pages.first[:, None] + torch.arange(self.blocks * self.frames, device=self.q.device)
        numbers = pages.numbers.repeat_interleave(self.frames, dim=1)
        block, window = (torch.tensor([n], device=self.q.device) for n in (self.frames, pages.window))
        mask = additive(visible_frames(own, pages.frames, numbers, block, window)).repeat(2, 1, 1, 1)
        mine = torch.arange(len(self.own), device=self.q.device).view(streams, -1)
        held = [
            gather_blocks(memory.nan_to_num(0.0), table)
            for memory, table in ((self.cache, pages.tables), (self.own, mine))
        ]
        keys, values = torch.cat(held, dim=3).float().unbind(1)
        weights = torch.softmax(self.q.float().transpose(1, 2) @ keys.transpose(-1, -2) + mask, dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2).flatten(0, 1)

    def valid(self, mixed):
        """Rows of valid frames only: the others are padding."""
        places = torch.arange(self.blocks * self.frames, device=self.q.device)
        return mixed[(places < self.pages.frames.repeat(2)[:, None]).flatten()]


@pytest.mark.parametrize("streams,blocks,heads,dim,frames", SHAPES)
@pytest.mark.parametrize("full", [True, False])
def test_attention(device, streams, blocks, heads, dim, frames, full):
    case = Case(device, torch.float32, streams, blocks, heads, dim, frames, full)
    arguments = case.q, case.cache, case.own, case.pages
    expected = flow.attend_blocks(*arguments)
    for rows in (None, 16, 64) if frames < 64 else (32,):
        close(flow_attention.attend_blocks(*arguments, rows), expected, torch.float32)
    close(case.valid(expected), case.valid(case.exported()), torch.float32)


@pytest.mark.parametrize(("shape", "rows"), [(SHAPES[2], None), (SHAPES[3], 64)])
def test_attention_in_16_bit(device, half, shape, rows):
    """64 rows of the released sizes are the one variant for which Hopper's own matrix instructions are compiled."""
    case = Case(device, half, *shape)
    arguments = case.q, case.cache, case.own, case.pages
    found, expected = flow_attention.attend_blocks(*arguments, rows), flow.attend_blocks(*arguments)
    assert found.dtype == expected.dtype == half
    close(found, expected, half)
    close(case.valid(expected), case.valid(case.exported()), half)


@pytest.mark.parametrize("attend", [flow.attend_blocks, flow_attention.attend_blocks])
def test_frames_that_see_nothing_are_zero(device, attend):
    """A block none of whose frames is valid, without a window and beside an empty table."""
    case = Case(device, torch.float32, 1, 2, 2, 16, 6)
    unseen = FlowPages(
        case.pages.tables, torch.full_like(case.pages.numbers, -1), case.pages.first, case.pages.frames - 6, 0
    )
    found = attend(case.q, case.cache, case.own, unseen).view(2, 2, 6, -1)
    assert torch.isfinite(found).all() and not found[:, 1].any() and found[:, 0].any()


@pytest.mark.parametrize("attend", [flow.attend_blocks, flow_attention.attend_blocks])
def test_a_stream_that_is_not_finite_is_noticed(device, attend):
    """What is seen is not hidden, and the stream beside it does not change."""
    case = Case(device, torch.float32, 2, 1, 2, 16, 6)
    clean = attend(case.q, case.cache, case.own, case.pages).view(2, 2, 6, -1)
    case.own[0, :, 0, :, 0, 0] = NAN  # a key of the first stream
    found = attend(case.q, case.cache, case.own, case.pages).view(2, 2, 6, -1)
    assert not torch.isfinite(found[:, 0]).any() and torch.equal(found[:, 1], clean[:, 1])


def test_tiles_of_queries(device):
    assert flow_attention.query_rows(10**6, 50, device) == 64
    assert flow_attention.query_rows(1, 50, device) == 16
    assert flow_attention.query_rows(10**6, 6, device) == 16, "no wider than a block"
