"""The rules of one answer, step by step."""

import pytest

from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.params import AnswerParams
from runtime.scheduling.stream import Frame

BOS, EOS_AUDIO, STOP = 2, 3, 4
TEXT = TextIds(audio=1, audio_bos=BOS, audio_eos=EOS_AUDIO, stop=(STOP,))
SPEECH = SpeechIds(codebook_size=20, bos=16, eos=17, pad=18, group_size=3)
GROUP, END = [5, 6, 7], [5, 17, 7]


def answer(**changes):
    return Answer(TEXT, SPEECH, AnswerParams(**{"max_tokens": 10} | changes))


def test_forced_start_and_first_group():
    a = answer()
    assert a.accept([9, *GROUP]) == Frame((BOS,), (), (), False, ""), "the prefill's group is thrown away"
    assert a.speaking
    assert a.accept([9, *GROUP]) == Frame((9,), (5, 6, 7), (5, 6, 7), False, "")


def test_end_of_speech_takes_the_whole_group_and_the_text_id():
    a = answer()
    a.accept([9, *GROUP])
    assert a.accept([9, *END]) == Frame((EOS_AUDIO,), (17, 17, 17), (), True, "")
    assert not a.speaking
    assert a.accept([9, *GROUP]) == Frame((9,), (), (), False, ""), "text goes on without speech"


def test_a_start_chosen_beside_the_end_does_not_restart():
    a = answer()
    a.accept([9, *GROUP])
    assert a.accept([BOS, *END]).text_ids == (EOS_AUDIO,)
    assert not a.speaking


def test_second_span_begins_plain():
    a = answer()
    a.accept([9, *GROUP])
    a.accept([9, *END])
    assert a.accept([BOS, *GROUP]).codes == ()
    assert a.speaking
    assert a.accept([9, *GROUP]).codes == (5, 6, 7)


def test_end_of_text_while_speaking_keeps_the_group():
    a = answer()
    a.accept([9, *GROUP])
    assert a.accept([STOP, *GROUP]) == Frame((STOP,), (5, 6, 7), (5, 6, 7), False, "stop")


def test_end_of_text_beside_end_of_speech_stops_and_is_overwritten():
    a = answer()
    a.accept([9, *GROUP])
    assert a.accept([STOP, *END]) == Frame((EOS_AUDIO,), (17, 17, 17), (), True, "stop")


def test_length_counts_text_steps():
    a = answer(max_tokens=2)
    assert a.accept([9, *GROUP]).finish == ""
    assert a.accept([9, *GROUP]).finish == "length"


def test_text_audio_eos_does_nothing():
    a = answer()
    a.accept([9, *GROUP])
    assert a.accept([EOS_AUDIO, *GROUP]) == Frame((EOS_AUDIO,), (5, 6, 7), (5, 6, 7), False, "")
    assert a.speaking


@pytest.mark.parametrize("first", [9, BOS])
def test_text_only_never_speaks(first):
    a = answer(mode="s2t", force_audio_start=False)
    assert a.accept([first]) == Frame((first,), (), (), False, "")
    assert not a.speaking and a.accept([BOS]).codes == ()


def test_no_forced_start_waits_for_the_text_head():
    a = answer(force_audio_start=False)
    assert a.accept([9, *GROUP]).codes == () and not a.speaking
    assert a.accept([BOS, *GROUP]).codes == () and a.speaking
    assert a.accept([9, *GROUP]).codes == (5, 6, 7)
