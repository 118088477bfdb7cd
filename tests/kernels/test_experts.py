"""A mixture of experts: kernels against their twins, the twins against plain products, and golden ids through both."""

import moe_data
import pytest
import torch
import torch.nn.functional as F

from kernels import experts
from kernels.decoder import swiglu
from kernels.gpu import experts as gpu
from kernels.linear import Dense
from kernels.ops import kernel_ops, twin_ops
from kernels.quantised import knows_fp8, quantise
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import recorded_loop

# Rows, experts, experts of a row: one row, fewer pairs than experts, all experts, more than a step of pairs.
SHAPES = [(1, 8, 2), (3, 20, 3), (5, 6, 6), (300, 12, 5)]
PRODUCTS = [(1, 8, 2), (3, 20, 3), (5, 6, 6), (40, 3, 2)]  # the last one in tiles of many rows
KINDS = [None, torch.int8, torch.float8_e4m3fn]


def matrix(out, depth, kind, device):
    weight = torch.randn(out, depth, device=device) / depth**0.5
    return Dense(weight) if kind is None else quantise(weight, kind)


@pytest.mark.parametrize("rows,count,taken", [*SHAPES[:-1], (3, 128, 8)])
@pytest.mark.parametrize("normalised", [False, True])
def test_route(device, rows, count, taken, normalised):
    scores = 2 * torch.randn(rows, count, device=device)
    ids, weights = gpu.route(scores, taken, normalised)
    expected = experts.route(scores, taken, normalised)
    assert torch.equal(ids, expected[0]) and ids.dtype == torch.int32
    torch.testing.assert_close(weights, expected[1], atol=1e-6, rtol=1e-5)


def test_route_is_the_authors_rule():
    scores = torch.randn(40, 16).bfloat16()
    shares, ids = torch.topk(F.softmax(scores, dim=1, dtype=torch.float), 4, dim=-1)
    found = experts.route(scores, 4, True)
    torch.testing.assert_close(found[1], shares / shares.sum(-1, keepdim=True))
    distinct = (shares.diff(dim=-1) != 0).all(-1)
    assert torch.equal(found[0][distinct], ids[distinct].int())


@pytest.mark.parametrize("module", [experts, gpu])
def test_of_equal_experts_the_first_is_taken(device, module):
    ids, weights = module.route(torch.tensor([[1.0, 3.0, 3.0, 1.0, 3.0]], device=device), 4, True)
    assert ids.tolist() == [[1, 2, 4, 0]] and float(weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_give_none_and_name_experts_that_exist(device, bad, normalised):
    """And the row beside is what it is alone."""
    scores = torch.randn(2, 6, device=device)
    scores[0, 2] = bad
    for module in (experts, gpu):
        ids, weights = module.route(scores, 3, normalised)
        assert weights[0].isnan().all() and ((ids >= 0) & (ids < 6)).all()
        assert torch.equal(weights[1], module.route(scores[1:], 3, normalised)[1][0])


@pytest.mark.parametrize("rows,count,taken", SHAPES)
def test_group_pairs(device, rows, count, taken):
    ids, _ = experts.route(torch.randn(rows, count, device=device), taken, True)
    found, expected = gpu.group_pairs(ids, count), experts.group_pairs(ids, count)
    assert torch.equal(found.order, expected.order)
    some = expected.groups[:, 1] < expected.groups[:, 2]
    assert torch.equal(found.groups[some], expected.groups[some]) and found.groups.shape == expected.groups.shape
    assert (found.groups[~some, 1] == found.groups[~some, 2]).all()
    taken_ids = ids.flatten().long()[found.order.long()]
    assert (taken_ids.diff() >= 0).all() and sorted(found.order.tolist()) == list(range(rows * taken))


@pytest.mark.parametrize("rows,count,taken", PRODUCTS)
@pytest.mark.parametrize("kind", KINDS)
def test_grouped_products(device, rows, count, taken, kind):
    if kind == torch.float8_e4m3fn and not knows_fp8(device):
        pytest.skip("this GPU has no FP8")
    hidden, width = 72, 40
    x = torch.randn(rows, hidden, device=device)
    ids, _ = experts.route(torch.randn(rows, count, device=device), taken, True)
    grouping = experts.group_pairs(ids, count)
    gate_up, down = matrix(count * 2 * width, hidden, kind, device), matrix(count * hidden, width, kind, device)
    active = experts.grouped_product(x, gate_up, grouping, taken, gated=True)
    torch.testing.assert_close(gpu.grouped_product(x, gate_up, grouping, taken, True), active, atol=1e-5, rtol=1e-4)
    parts = experts.grouped_product(active, down, grouping, 1)
    torch.testing.assert_close(gpu.grouped_product(active, down, grouping, 1), parts, atol=1e-5, rtol=1e-4)
    if kind is None:  # the twin against one product a pair
        pair = rows * taken - 1
        part = gate_up.weight.view(count, 2 * width, hidden)[int(ids.flatten()[pair])]
        torch.testing.assert_close(active[pair], swiglu(F.linear(x[-1:], part))[0], atol=1e-5, rtol=1e-4)


def test_in_16_bit(device, half):
    x = torch.randn(9, 128, device=device).to(half)
    ids, weights = experts.route(torch.randn(9, 8, device=device), 2, True)
    grouping = experts.group_pairs(ids, 8)
    gate_up = Dense((torch.randn(8 * 2 * 48, 128, device=device) / 11).to(half))
    expected = experts.grouped_product(x, gate_up, grouping, 2, gated=True)
    torch.testing.assert_close(gpu.grouped_product(x, gate_up, grouping, 2, True), expected, atol=2e-2, rtol=2e-2)
    mixed = experts.mix_experts(expected, weights)
    torch.testing.assert_close(gpu.mix_experts(expected, weights), mixed, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("rows,taken,width", [(1, 1, 5), (4, 8, 1500), (7, 3, 64)])
def test_mix(device, rows, taken, width):
    parts, weights = torch.randn(rows * taken, width, device=device), torch.rand(rows, taken, device=device)
    torch.testing.assert_close(gpu.mix_experts(parts, weights), experts.mix_experts(parts, weights))


def test_rows_of_another_expert_change_no_bit(device):
    """Few rows and many: the same sums in the same order."""
    x = torch.randn(40, 64, device=device)
    layer = experts.Experts(
        torch.randn(4, 64, device=device),
        matrix(4 * 2 * 32, 64, None, device),
        matrix(4 * 64, 32, None, device),
        2,
        True,
    )
    few = experts.run_experts(kernel_ops(), x[:3], layer)
    assert torch.equal(experts.run_experts(kernel_ops(), x[:3], layer), few)
    torch.testing.assert_close(experts.run_experts(kernel_ops(), x, layer)[:3], few, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(few, experts.run_experts(experts, x[:3], layer), atol=1e-5, rtol=1e-4)


class Launched:
    """Stands for a kernel: keeps its grids."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *args, **options: None


@pytest.mark.parametrize("rows,groups,tile", [(1, 8, 16), (15, 120, 16), (16, 128, 16), (64, 128, 16), (128, 128, 32)])
def test_grids_depend_on_the_number_of_rows_alone(monkeypatch, rows, groups, tile):
    """Of the released sizes: at one row no program has an expert that is not taken."""
    launched, options = Launched(), []
    kernel = type("Kernel", (), {"__getitem__": lambda _, grid: (
        launched.grids.append(grid), lambda *args, **given: options.append(given))[1]})()  # fmt: skip
    monkeypatch.setattr(gpu, "_grouped_product", kernel)
    grouping = experts.Grouping(torch.zeros(8 * rows), torch.zeros(groups, 3), 128)
    weight = torch.empty(128 * 1536, 2048, device="meta")
    gpu.grouped_product(torch.zeros(rows, 2048), Dense(weight), grouping, 8, gated=True)
    assert launched.grids == [(48, groups)] and options[0]["ROWS"] == tile
    ids = torch.arange(8 * rows).view(rows, 8) % 128
    assert len(experts.group_pairs(ids, 128).groups) == groups


class OnlyExperts:
    """Experts by kernels, all else by twins."""

    def __getattr__(self, name):
        return getattr(gpu, name, None) or getattr(twin_ops(), name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter")
def test_golden_ids_through_the_kernels():
    loop = recorded_loop(moe_data.config(), EngineOptions(1, 256, 256, 64), torch.device("cpu"), ops=OnlyExperts())
    name, frames = "s2s_textonly", 8
    loop.add(moe_data.stream(name))
    found = []
    while len(found) < frames:
        found += [item.frame for item in loop.step()]
    golden = moe_data.run(name)
    assert [frame.text_ids[0] for frame in found] == golden["text_ids"][: len(found)].tolist()
    codes = [code for frame in found for code in frame.codes]
    assert codes and codes == golden["speech_ids"][: len(codes)].tolist()


@pytest.mark.parametrize("kind,bound", [(torch.int8, 0.03), (torch.float8_e4m3fn, 0.08)])
def test_error_of_weight_only_experts(kind, bound):
    """Relative to the norm of what exact ones give: two matrices and a product of two rows of numbers."""
    x, router = torch.randn(20, 256), torch.randn(8, 256)
    exact = [torch.randn(8 * 2 * 96, 256) / 16, torch.randn(8 * 256, 96) / 10]

    def layer(make):
        return experts.Experts(router, make(exact[0]), make(exact[1]), 2, True)

    expected = experts.run_experts(experts, x, layer(Dense))
    found = experts.run_experts(experts, x, layer(lambda weight: quantise(weight, kind)))
    assert float((found - expected).norm() / expected.norm()) < bound


@pytest.mark.parametrize("linear", ["int8", "fp8"])
def test_the_router_is_never_quantised(linear):
    options = EngineOptions(1, 256, 256, 64, device="cuda", linear=linear)
    loop = recorded_loop(moe_data.config(), options, torch.device("cpu"))
    for layer in loop.model.steps.backbone_stack.stack.layers:
        assert layer.experts.router.dtype == torch.float32
        assert layer.experts.gate_up.weight.element_size() == layer.experts.down.weight.element_size() == 1
