"""The sampler against transformers' own processors, and its random numbers against published vectors."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kernels.choice import Choices, processed
from kernels.sampler import draw, philox_uniforms, probabilities

IDS = 300


def reference(scores, context, penalty, temperature, top_k, top_p):
    """transformers' processors in the order of its generate()."""
    out = RepetitionPenaltyLogitsProcessor(penalty)(context, scores.clone())
    if temperature != 1.0:
        out = TemperatureLogitsWarper(temperature)(context, out)
    if top_k:
        out = TopKLogitsWarper(top_k)(context, out)
    if top_p < 1.0:
        out = TopPLogitsWarper(top_p)(context, out)
    return out.softmax(-1)


@pytest.mark.parametrize("seed", range(20))
def test_processed_distribution_is_transformers(seed):
    """Rows of one batch with different parameters, each as if it were alone."""
    generator = np.random.default_rng(seed)
    rows = 6
    scores = torch.from_numpy(generator.normal(0, 3, (rows, IDS)).astype(np.float32))
    context = torch.from_numpy(generator.integers(0, IDS, (rows, 40)))
    penalty = generator.choice([1.0, 1.2, 0.8], rows)
    temperature = generator.choice([1.0, 0.8, 1.5], rows).astype(np.float32)
    top_k = generator.choice([0, 1, 5, 1000], rows)
    top_p = generator.choice([1.0, 0.9, 0.3, 1e-4], rows).astype(np.float32)
    expected = torch.cat(
        [
            reference(
                scores[i : i + 1], context[i : i + 1], penalty[i], float(temperature[i]), int(top_k[i]), float(top_p[i])
            )
            for i in range(rows)
        ]
    )
    seen = torch.zeros(rows, IDS, dtype=torch.uint8).scatter(1, context[:, :30], 1)  # the rest comes as earlier ids
    none = torch.zeros(rows, dtype=torch.int64)
    choices = Choices(
        seen=seen, greedy=none.bool(), penalty=torch.from_numpy(penalty.astype(np.float32)), temperature=none,
        top_k=none, top_p=none, seeds=none, steps=none, bans=none.new_zeros(rows, 0, 2), last=none, faulty=none.bool(),
    )  # fmt: skip
    before = seen.clone()
    found = processed(scores, torch.arange(rows), choices, context[:, 30:])
    assert torch.equal(choices.seen, before)
    columns = [torch.from_numpy(values)[:, None] for values in (temperature, top_k, top_p)]
    found = probabilities(found, *columns)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_draw_is_the_inverse_of_the_cumulative_distribution():
    distribution = torch.tensor([[0.0, 0.25, 0.0, 0.75]]).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.2499, 0.25, 0.5, 1 - 2**-32], dtype=torch.float64)
    assert draw(distribution, uniforms).tolist() == [1, 1, 3, 3, 3]


def test_uniforms_are_philox():
    """Known answer of Philox 4x32-10 for a zero key and counter (Random123's test vectors)."""
    words = (philox_uniforms(np.zeros(1, np.int64), np.zeros(1, np.int64), 4)[0] * 2**32).astype(np.uint64)
    assert [f"{int(word):08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_uniforms_depend_on_seed_step_and_position_only():
    seeds, steps = np.array([3, 3, 2**40, 3]), np.array([0, 1, 0, 0])
    numbers = philox_uniforms(seeds, steps, 6)
    assert np.array_equal(numbers[0], numbers[3]) and len(np.unique(numbers[:3])) == 18
    assert np.array_equal(philox_uniforms(seeds[:1], steps[:1], 3)[0], numbers[0, :3])
    many = philox_uniforms(np.arange(4000), np.zeros(4000, np.int64), 5)
    assert abs(many.mean() - 0.5) < 0.01 and many.min() >= 0 and many.max() < 1
