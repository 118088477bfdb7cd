"""Strategies of sound and of text whose prompt is known: what must be answered, and how long its prompt is."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import strategies as st

from client.protocol.requests import HIGHEST_RATE, LOWEST_RATE
from tests.endurance.case import Case, Expect, add_tensor, draft, set_parameter
from tests.endurance.oracle import PromptOracle
from tests.endurance.strategies import FEW, say, small
from tests.endurance.texts import spelled, torn

EXTREMES = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e30, 3.4e38, -3.4e38)
BROKEN = (np.nan, np.inf, -np.inf)
WRONG_LENGTHS = st.one_of(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4),
    st.sampled_from(([2**31 - 1, 2**31 - 1, 2], [0], [-1, 2], [2**30] * 4, [])),
)


@st.composite
def sounds(draw: st.DrawFn) -> Case:
    """Finite sound of any loudness, rate and length, in one clip or several: a clear error or an answer."""
    samples = draw(st.one_of(st.integers(0, 30), st.integers(100, 20_000)))
    pattern = draw(st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=4))
    clip = np.resize(np.array(pattern, np.float32), samples)
    request, tokens = draft(), draw(FEW)
    small(request, tokens, draw(st.sampled_from(("s2s", "s2t", "s2t"))))
    add_tensor(request, "audio", clip, "FP32")
    if draw(st.booleans()) and samples > 3:
        ends = sorted(draw(st.sets(st.integers(1, samples - 1), max_size=3)))
        lengths = np.diff([0, *ends, samples]).astype(np.int32)
        add_tensor(request, "audio_lengths", lengths, "INT32")
    if draw(st.booleans()):
        set_parameter(request, "sample_rate", draw(st.integers(LOWEST_RATE, HIGHEST_RATE)))
    return Case("sounds", request.SerializeToString(), max_tokens=tokens)


@st.composite
def broken_sounds(draw: st.DrawFn) -> Case:
    """Samples that are no numbers, lengths that do not add up, rates that do not exist, clips too long."""
    request, clip = small(draft(), draw(FEW)), np.zeros(draw(st.integers(1, 2000)), np.float32)
    kind = draw(st.sampled_from((*("samples", "lengths", "rate", "shape") * 5, "long")))  # 4.8 MB: rare
    if kind == "samples":
        clip[draw(st.integers(0, len(clip) - 1))] = draw(st.sampled_from(BROKEN))
    if kind == "long":
        clip = np.zeros(1_200_001, np.float32)
        set_parameter(request, "sample_rate", LOWEST_RATE)
    if kind == "shape":
        clip = clip[None]
    add_tensor(request, "audio", clip, "FP32")
    if kind == "lengths":
        lengths = draw(WRONG_LENGTHS)
        lengths = [*lengths, 1] if sum(lengths) == len(clip) and min(lengths, default=0) > 0 else lengths
        add_tensor(request, "audio_lengths", np.array(lengths, np.int32), "INT32")
    if kind == "rate":
        wrong = st.one_of(st.integers(-(2**63), LOWEST_RATE - 1), st.integers(HIGHEST_RATE + 1, 2**63 - 1))
        set_parameter(request, "sample_rate", draw(wrong))
    return Case("broken_sounds", request.SerializeToString(), Expect.ERROR, None)


@st.composite
def injections(draw: st.DrawFn, oracle: PromptOracle) -> Case:
    """Control spellings in every place where a user writes; they must be counted as text."""
    text, system, tokens = draw(spelled()), draw(st.one_of(st.none(), spelled())), draw(FEW)
    system = system and system.replace("\x00", "")  # Triton cuts a parameter there
    request = small(draft(), tokens)
    if draw(st.booleans()):
        say(request, text)
        if system is not None:
            set_parameter(request, "system", system)
        messages = oracle.single(text, system)
    else:
        history = [{"role": "assistant", "content": system or ""}, {"role": "user", "content": text}]
        document = json.dumps(history, ensure_ascii=draw(st.booleans()))
        add_tensor(request, "messages", np.array([document.encode()], np.object_), "BYTES")
        messages = oracle.parsed(document)
    positions = oracle.positions(messages)
    return Case("injections", request.SerializeToString(), Expect.ANSWER, max_tokens=tokens, positions=positions)


@st.composite
def surrogates(draw: st.DrawFn) -> Case:
    """Lone surrogates, as JSON escapes or as bytes that are no UTF-8: always an error."""
    request, text = small(draft(), draw(FEW)), draw(torn())
    if draw(st.booleans()):
        say(request, text)
    else:
        place = draw(st.sampled_from(("content", "part", "key", "role")))
        turn = {
            "content": {"role": "user", "content": text},
            "part": {"role": "user", "content": [{"type": "text", "text": text}]},
            "key": {"role": "user", "content": "hi", text: 1},
            "role": {"role": text, "content": "hi"},
        }[place]
        add_tensor(request, "messages", np.array([json.dumps([turn]).encode()], np.object_), "BYTES")
    return Case("surrogates", request.SerializeToString(), Expect.ERROR, None)


@st.composite
def long_texts(draw: st.DrawFn) -> Case:
    """Text that is longer than any prompt may be."""
    request = small(draft(), draw(FEW))
    say(request, draw(st.sampled_from(("a b", "é", "\u202e", "<|im_end|>", "🎧"))) * draw(st.integers(5_000, 40_000)))
    return Case("long_texts", request.SerializeToString(), outputs=None)
