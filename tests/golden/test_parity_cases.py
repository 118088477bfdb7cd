"""The five parity cases against the authors' hidden states and logits.

The torch engine runs bindings that the compiled engine takes, and the compiled engine's own runtime runs
over a double of TensorRT that computes with exactly what was bound.
"""

import parity_data
import pytest
import torch
from rigs import PROFILES, golden_weights, torch_engine
from tensorrt_double import double_engine

from builders.parity.cases import five_cases
from builders.parity.play import Player
from runtime.engines.trtllm.step_check import check_step

pytestmark = pytest.mark.golden
HIDDEN, LOGITS = 1e-4, 2e-4
STACKS = ("backbone", "speech")
NUMBERS = range(5)


@pytest.fixture(scope="module")
def goldens():
    weights = golden_weights()
    return {s: [getattr(parity_data, s)(clip, weights) for clip in parity_data.CLIPS] for s in STACKS}


class Checked:
    """The torch engine, fed only with what the compiled engine's profile allows."""

    def __init__(self, stack):
        self._engine, self._profile = torch_engine(stack), PROFILES[stack]
        self.shape, self.pool_address = self._engine.shape, self._engine.pool_address

    def run(self, inputs, bindings):
        check_step(self._profile, tuple(inputs.shape), bindings, self.pool_address())
        return self._engine.run(inputs, bindings)


def compare(goldens, outputs):
    compared = 0
    for output in outputs:
        golden, piece = goldens[output.piece.trace], output.piece
        last = piece.begin + piece.length - 1
        if output.hidden is not None:
            for position, row in enumerate(output.hidden, start=piece.begin):
                if position in golden.hidden:
                    assert abs(row.numpy() - golden.hidden[position]).max() < HIDDEN, (piece, position)
                    compared += 1
        if last in golden.logits:
            assert abs(output.logits.numpy() - golden.logits[last]).max() < LOGITS, piece
            compared += 1
        if last in golden.top10:
            ids, values = golden.top10[last]
            assert abs(output.logits[torch.from_numpy(ids)].numpy() - values).max() < LOGITS, piece
            assert int(output.logits.argmax()) == ids[0]
            compared += 1
    return compared


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("make", [Checked, double_engine], ids=["torch", "compiled"])
def test_case(goldens, stack, number, make):
    traces = [golden.trace for golden in goldens[stack]]
    profile = PROFILES[stack]
    case = five_cases([t.prompt for t in traces], profile.max_input_len, profile.shape.max_num_tokens)[number]
    outputs = Player(make(stack)).play(case, traces)
    assert compare(goldens[stack], outputs) >= 2, "nothing was compared"
