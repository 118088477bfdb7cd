"""The sampler kernel: ids equal to the twin's, whose arithmetic is that of ``kernels.sampler``."""

import numpy as np
import pytest
import torch
from pools import ints

from kernels import choice
from kernels.choice import Choices
from kernels.gpu import choice as gpu
from kernels.sampler import philox_uniforms

SLOTS = 6


def make(device, ids, pairs=0, **changed):
    """Slots with parameters of their own; the last one is greedy."""
    values = dict(
        seen=(torch.rand(SLOTS, ids) < 0.2).byte(),
        greedy=torch.tensor([False] * (SLOTS - 1) + [True]),
        penalty=torch.tensor([1.2, 1.0, 0.7, 1.5, 1.1, 1.3]),
        temperature=torch.tensor([0.8, 1.0, 2.5, 0.3, 1.2, 0.8]),
        top_k=torch.tensor([0, 5, 0, 50, 1, 0], dtype=torch.int32),
        top_p=torch.tensor([0.9, 1.0, 0.5, 0.95, 0.9, 0.9]),
        seeds=torch.tensor([0, 7, 2**40 + 3, 2**63 - 1, 5, 6]),
        steps=torch.tensor([0, 1, 100, 2**33, 4, 5]),
        bans=torch.full((SLOTS, pairs, 2), -1),
        last=torch.zeros(SLOTS, dtype=torch.int64),
        faulty=torch.zeros(SLOTS, dtype=torch.bool),
    )
    return Choices(**{name: value.to(device) for name, value in (values | changed).items()})


def both(scores, slots, choices, earlier, number):
    return (
        gpu.choose(scores, slots, choices, earlier, number).tolist(),
        choice.choose(scores, slots, choices, earlier, number).tolist(),
    )


@pytest.mark.parametrize("ids", [11, 100, 6565])
def test_ids_equal_the_twins(device, ids):
    choices = make(device, ids)
    for number in (0, 1, 4):
        slots = ints(torch.randperm(SLOTS).tolist(), device)
        scores = 3 * torch.randn(SLOTS, ids, device=device)
        earlier = torch.randint(ids, (SLOTS, 5), device=device)[:, :number]
        found, expected = both(scores, slots, choices, earlier, number)
        assert found == expected


@pytest.fixture
def small_blocks(monkeypatch):
    """A row of the tests is as long for a program as a row of text scores is."""
    monkeypatch.setattr(gpu, "MAX_BLOCK", 32)
    monkeypatch.setattr(gpu, "SCAN_BLOCK", 16)


def test_rows_longer_than_a_program_holds(device, small_blocks):
    choices = make(device, 71)
    for number in range(1, 3):
        found, expected = both(torch.randn(SLOTS, 71, device=device), ints(range(SLOTS), device), choices, None, number)
        assert found == expected


def test_the_draw_is_philox_of_seed_step_and_position(device):
    """Equal scores: the id is the uniform number itself, counted in ids."""
    ids = 1000
    same = dict(greedy=torch.zeros(SLOTS, dtype=torch.bool), top_k=torch.zeros(SLOTS, dtype=torch.int32))
    choices = make(device, ids, seen=torch.zeros(SLOTS, ids, dtype=torch.uint8), top_p=torch.ones(SLOTS), **same)
    numbers = philox_uniforms(choices.seeds.cpu().numpy(), choices.steps.cpu().numpy(), 6)
    for number in range(6):
        found, _ = both(torch.zeros(SLOTS, ids, device=device), ints(range(SLOTS), device), choices, None, number)
        assert found == np.floor(numbers[:, number] * ids).astype(int).tolist()


def test_bans_and_argmax_ties(device):
    bans = torch.full((SLOTS, 2, 2), -1)
    bans[:, 1] = torch.tensor([3, 4])
    last = torch.tensor([3, 3, 9, 9, 3, 3])
    choices = make(
        device,
        20,
        pairs=2,
        bans=bans,
        last=last,
        greedy=torch.ones(SLOTS, dtype=torch.bool),
        seen=torch.zeros(SLOTS, 20).byte(),
    )
    scores = torch.zeros(SLOTS, 20, device=device)
    scores[:, 4], scores[:, 6], scores[:, 13] = 2.0, 1.0, 1.0
    found, expected = both(scores, ints(range(SLOTS), device), choices, None, 0)
    assert found == expected == [6, 6, 4, 4, 6, 6], "banned only after id 3; the first of equals wins"


def test_a_tiny_top_p_keeps_one(device):
    choices = make(device, 50, top_p=torch.full((SLOTS,), 1e-9))
    found, expected = both(torch.randn(SLOTS, 50, device=device), ints(range(SLOTS), device), choices, None, 0)
    assert found == expected


def test_frequencies(device):
    """Many draws of one distribution come out as often as they should (control of the whole chain)."""
    rows = 100
    scores = torch.tensor([0.5, 0.3, 0.2]).log().repeat(rows, 1).to(device)
    flat = dict(
        seen=torch.zeros(1, 3).byte(), greedy=torch.zeros(1).bool(), penalty=torch.ones(1), temperature=torch.ones(1),
        top_k=torch.zeros(1).int(), top_p=torch.ones(1), seeds=torch.zeros(1).long(), bans=torch.zeros(1, 0, 2).long(),
        last=torch.zeros(1).long(), faulty=torch.zeros(1).bool(),
    )  # fmt: skip
    flat = {name: value.repeat(rows, *[1] * (value.dim() - 1)).to(device) for name, value in flat.items()}
    choices = Choices(**flat, steps=torch.arange(rows, device=device))
    counts = np.bincount(gpu.choose(scores, ints(range(rows), device), choices, None, 0).cpu(), minlength=3)
    assert np.abs(counts / rows - [0.5, 0.3, 0.2]).max() < 0.15


def test_equal_scores_in_several_blocks(device, small_blocks):
    """The lowest id wins, whichever program found it; a row may be all minus infinity."""
    choices = make(device, 71, greedy=torch.ones(SLOTS, dtype=torch.bool), seen=torch.zeros(SLOTS, 71).byte())
    scores = torch.zeros(SLOTS, 71, device=device)
    scores[0, [70, 40]] = scores[1, [15, 16]] = scores[2, [33, 34, 69]] = scores[3, [70]] = 1.0
    scores[4] = -torch.inf
    found, expected = both(scores, ints(range(SLOTS), device), choices, None, 0)
    assert found == expected == [40, 15, 33, 70, 0, 0]


def test_ids_into_a_column_of_a_group(device):
    """Codes stand behind each other in a group, and the penalty sees those before."""
    scores, slots = torch.randn(SLOTS, 100, device=device), ints(range(SLOTS), device)
    for module in (gpu, choice):
        group = torch.full((SLOTS, 5), 99, device=device)
        for number in range(3):
            given = module.choose(scores.clone(), slots, make_once(device), group[:, :number], number, group[:, number])
            assert given.tolist() == group[:, number].tolist()
            plain = module.choose(scores.clone(), slots, make_once(device), group[:, :number].clone(), number)
            assert plain.tolist() == given.tolist()
        assert (group[:, 3:] == 99).all() and len(set(group[:, 0].tolist())) > 1


def make_once(device):
    torch.manual_seed(1)
    return make(device, 100)


@pytest.mark.parametrize("module", [gpu, choice])
@pytest.mark.parametrize("long", [False, True])
def test_scores_that_are_not_finite_are_noted(device, monkeypatch, module, long):
    """By slot; a flag that is set stays set, and whatever id comes out is one of the row's."""
    if long:
        monkeypatch.setattr(gpu, "MAX_BLOCK", 32)
        monkeypatch.setattr(gpu, "SCAN_BLOCK", 16)
    scores = torch.randn(SLOTS, 71, device=device)
    scores[1, 40], scores[2, 3], scores[3], scores[4, :70] = torch.nan, torch.inf, -torch.inf, -torch.inf
    slots = ints([5, 4, 3, 2, 1], device)  # no row asks for slot 0
    before = torch.arange(SLOTS) == 5
    choices = make(device, 71, faulty=before, greedy=torch.arange(SLOTS) % 2 == 0)
    chosen = module.choose(scores[:5], slots, choices, None, 0)
    assert choices.faulty.tolist() == [False, False, True, True, True, True]
    assert ((chosen >= 0) & (chosen < 71)).all()
