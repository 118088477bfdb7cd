"""The rules of an answer in one kernel: equal to the twin, and both to the host's ``Answer``."""

from dataclasses import fields, replace

import pytest
import torch
from pools import ints

from kernels import accept
from kernels.accept import Answers, Rules
from kernels.gpu import accept as gpu
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.params import AnswerParams

SLOTS, GROUP, TEXTS, CODES = 7, 5, 23, 11  # the last slot is padding
RULES = Rules(audio_bos=20, audio_eos=21, speech_eos=9, not_finite=-1)
KERNELS = [accept.accept, gpu.accept]


def make(device):
    """Every combination of flags comes up somewhere in a few draws of this."""

    def longs(most, *shape):
        return torch.randint(most, (SLOTS, *shape), device=device)

    flags = [torch.rand(SLOTS, device=device) < share for share in (0.5, 0.7, 0.6, 0.5, 0.3)]
    seen = [(torch.rand(SLOTS, ids, device=device) < 0.2).byte() for ids in (TEXTS, CODES)]
    answers = Answers(longs(TEXTS), longs(CODES, GROUP), longs(TEXTS), longs(50), longs(2), *flags, *seen)
    answers.position[-1] = 0
    return answers


def copied(state):
    return Answers(**{field.name: getattr(state, field.name).clone() for field in fields(Answers)})


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_twin(device, seed):
    """Rows in any order, some of them padding; slots that are not asked for stay as they are."""
    torch.manual_seed(seed)
    before = make(device)
    states, slots, found = [copied(before) for _ in KERNELS], ints([4, 0, 2, 1, 6, 6], device), []
    for kernel, state in zip(KERNELS, states, strict=True):
        found.append(torch.zeros(6, 1 + GROUP, dtype=torch.int64, device=device))
        kernel(state, RULES, slots, found[-1])
    assert torch.equal(found[0][:4], found[1][:4])
    for field in fields(Answers):
        expected, mine = (getattr(state, field.name) for state in states)
        assert mine.dtype == expected.dtype and torch.equal(mine[:-1], expected[:-1]), field.name
        assert torch.equal(mine[[3, 5]], getattr(before, field.name)[[3, 5]]), field.name
    assert int(states[0].position[-1]) == int(states[1].position[-1]) == 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("forced", [False, True])
def test_equal_to_the_hosts_rules(device, kernel, forced):
    """A long answer of random ids with ends and new beginnings of speech."""
    text_ids, speech_ids = TextIds(19, RULES.audio_bos, RULES.audio_eos, ()), SpeechIds(CODES, 8, 9, 10, GROUP)
    answer = Answer(text_ids, speech_ids, AnswerParams(max_tokens=1000, force_audio_start=forced))
    state, slots = make(device), ints([2], device)
    for name in ("forwards", "speaking", "feeding", "faulty", "text_seen", "code_seen"):
        getattr(state, name)[2] = 0
    state.speaks[2], state.forced[2] = True, forced
    found, ended = torch.zeros(1, 1 + GROUP, dtype=torch.int64, device=device), 0
    said = set()
    for _ in range(60):
        text, codes = int(torch.randint(TEXTS, ())), torch.randint(CODES, (GROUP,)).tolist()
        state.chosen[2], state.codes[2] = text, torch.tensor(codes, device=device)
        kernel(state, RULES, slots, found)
        assert found.tolist() == [[text, *codes]]
        frame = answer.accept([text, *codes])
        ended += frame.span_ended
        said.update(frame.codes)
        [text_id] = frame.text_ids
        assert int(state.text_id[2]) == text_id and int(state.text_seen[2, text_id]) == 1
        assert (bool(state.speaking[2]), bool(state.feeding[2])) == (
            answer.speaking,
            bool(frame.codes) and not frame.span_ended,
        )
    assert ended and set(state.code_seen[2].nonzero()[:, 0].tolist()) == said


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_faulty_slot_shows_it_once(device, kernel):
    state = replace(make(device), faulty=torch.arange(SLOTS, device=device) == 1)
    found = torch.zeros(2, 1 + GROUP, dtype=torch.int64, device=device)
    kernel(state, RULES, ints([1, 3], device), found)
    assert found[0, 0] == RULES.not_finite and found[1, 0] == state.chosen[3]
    assert not state.faulty.any(), "the next frame begins without a fault"
