"""The judges of the long proofs: what is right passes, and every kind of wrong is seen."""

import numpy as np
import pytest

from tests.endurance.case import Case, Expect, Verdict, draft, judge
from tests.endurance.freeing import summary
from tests.endurance.outcome import End, Outcome, flaw, refused_by_triton, typed
from tests.endurance.traffic import ALL_OUTPUTS
from tests.endurance.verdict import Bounds, growth_of, rise, slope, warm
from tests.endurance.watching import Sample, Use, held

SILENT = {"audio_samples": 0, "text_tokens": 2, "prompt_positions": 9}


def answer(**changes):
    values = {"end": End.ANSWER, "ids": [1, 2], "finish": "length", "stats": SILENT}
    return Outcome(**values | changes)


def test_a_right_answer_has_no_flaw():
    assert flaw(answer(), ALL_OUTPUTS, 2) == ""
    sound = [np.zeros(4800, np.float32)]
    spoken = answer(codes=[5] * 5 + [6562] * 5, audio=sound, stats=SILENT | {"audio_samples": 4800})
    assert flaw(spoken, ALL_OUTPUTS, 2) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": End.ERROR, "error": "x"}, "ended by error"),
        ({"finish": ""}, "finish_reason is ''"),
        ({"finish": "lengthlength"}, "finish_reason is"),
        ({"ids": [1, 2, 3]}, "3 text ids"),
        ({"ids": [1]}, "length after 1 of 2"),
        ({"codes": [5]}, "0 samples for 1 codes"),
        ({"audio": [np.zeros(7, np.float32)]}, "7 samples for 0 codes"),
        ({"codes": [5], "audio": [np.full(960, np.nan, np.float32)]}, "not finite"),
        ({"stats": None}, "no stats"),
        ({"stats": SILENT | {"text_tokens": 3}}, "stats count 3"),
    ],
)
def test_each_flaw_is_seen(changes, words):
    assert words in flaw(answer(**changes), ALL_OUTPUTS, 2)


def test_typed_errors_and_refusals():
    assert typed("INVALID_ARG: text: is wrong; mend it")
    assert typed("[request id: 7] UNAVAILABLE: server: is full; come again")
    for wrong in ("INVALID_ARG: text: no remedy", "WHAT: text: is; x", "INVALID_ARG: : x; y", "oops", ""):
        assert not typed(wrong)
    assert refused_by_triton("unexpected inference input 'x', allowed") and not refused_by_triton("internal error")


def judged(outcome, **case):
    return judge(Case("test", draft().SerializeToString(), **case), outcome)[0]


def test_verdicts():
    refused = Outcome(end=End.ERROR, error="INVALID_ARG: a: b; c")
    assert judged(answer()) == Verdict.ANSWER and judged(refused) == Verdict.TYPED
    assert judged(answer(), expect=Expect.ERROR) == Verdict.WRONG
    assert judged(refused, expect=Expect.ANSWER) == Verdict.WRONG
    assert judged(answer(), positions=10) == Verdict.WRONG and judged(answer(), positions=9) == Verdict.ANSWER
    assert judged(Outcome(end=End.ERROR, error="INTERNAL: server: a; b")) == Verdict.WRONG
    assert judged(Outcome(end=End.ERROR, error="Traceback")) == Verdict.UNTYPED
    assert judged(Outcome(end=End.HANG)) == judged(Outcome()) == Verdict.HANG
    assert judged(Outcome(end=End.LOST)) == Verdict.CRASH
    assert judge(Case("garbage", b"\xff\xff"), Outcome())[0] == Verdict.TRITON


def samples(rss=lambda t: 100.0, fds=lambda t: 50, shm=lambda t: 4.0, seconds=1000):
    return [Sample(t, {"flow": Use(1, rss(t), 0.0, fds(t), 9)}, shm(t), {}) for t in range(seconds)]


def test_what_is_flat_passes_and_what_grows_does_not():
    jagged = samples(rss=lambda t: 100.0 + t % 7 + 30 * (t < 150), fds=lambda t: 50 + t % 4)
    assert growth_of(warm(jagged)).flaws(Bounds()) == [], "neither noise nor the warm-up is growth"
    leak = growth_of(warm(samples(rss=lambda t: 100.0 + 0.03 * t)))
    assert leak.flaws(Bounds()) and leak.rss_mb_per_hour["flow"] == pytest.approx(108, rel=0.01)
    assert growth_of(warm(samples(fds=lambda t: t // 50))).flaws(Bounds())
    assert growth_of(warm(samples(shm=lambda t: t // 100))).flaws(Bounds())
    spike = growth_of(warm(samples(rss=lambda t: 100.0 + 500 * (t == 990))))
    assert spike.flaws(Bounds()) == [], "one high sample decides nothing"


def test_short_series():
    assert rise([1], [5]) == slope([1], [5]) == 0.0 and growth_of([]).flaws(Bounds()) == [] and warm([]) == []


def test_held():
    assert held({"kv_used_backbone": 0.0, "live_requests": 0.0, "kv_free_backbone": 9.0}) == {}
    assert held({"kv_used_backbone": 4.0}) == {"kv_used_backbone": 4.0}
    assert held({"flow_streams": 1.0}) == {"flow_streams": 1.0}
    assert held({}), "a server that shows no numbers is not known to be empty"


def test_percentiles():
    assert (
        summary([1.0, 2.0, 3.0]) == {"free_ms_p50": 2.0, "free_ms_p95": 2.9, "free_ms_max": 3.0} and summary([]) == {}
    )
