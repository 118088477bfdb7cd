"""Golden cases as requests, answers as values, and the offline rendering to compare sound with."""

from __future__ import annotations

import re
import time
import urllib.request
from dataclasses import dataclass, field

import chat_data
import numpy as np

from runtime.token2wav.build import onnx_flow, onnx_vocoder
from runtime.token2wav.hops import DEFAULT_HOPS, ChunkCutter, HopPolicy
from runtime.tritonserver.metrics import PREFIX

VOICE = "中文女".encode()
SETTLE_S = 0.3
KEY_STREAMS = 2  # requests at once with one API key
FIRST_CONTROL, SPEECH_EOS = 6561, 6562
RECORDED_DRAWS = {name for name, case in chat_data.cases().items() if case["do_sample"]}
# The protocol sends sound, not codes, as history.
INEXPRESSIBLE = RECORDED_DRAWS | {"s2s_discrete_history"}
CASES = [name for name in chat_data.cases() if name not in INEXPRESSIBLE]


@dataclass
class Answer:
    text: str = ""
    ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)
    finish: str = ""
    stats: dict | None = None
    responses: int = 0
    first_s: float | None = None
    first_at: float = 0.0  # of the monotonic clock
    ended_at: float = 0.0

    @property
    def sound(self):
        return np.concatenate([np.zeros(0, np.float32), *self.audio])


def request_of(name, folder=chat_data.FOLDER):
    """Keyword arguments of ``ChatClient.stream`` for a golden case."""
    case = chat_data.cases(folder)[name]
    turns = []
    for message in chat_data.messages(name, folder):
        parts = [{"type": "audio"} if p is None else {"type": "text", "text": p} for p in message.parts]
        turns.append({"role": message.role, "content": parts})
    clips = [chat_data.wav(clip) for clip in case["wavs"]]
    return {
        "audio": clips or None,
        "messages": turns,
        "mode": case["mode"],
        "greedy": True,
        "text_greedy": case["text_greedy"],
        "force_audio_start": case["force_text_abos"],
        "repetition_penalty": case["repetition_penalty"],
        "max_tokens": case["max_new_tokens"],
    }


def collect(client, **request):
    began, answer = time.monotonic(), Answer()
    for chunk in client.stream(timeout=120, **request):
        if answer.first_s is None:
            answer.first_at = time.monotonic()
            answer.first_s = answer.first_at - began
        answer.text += chunk.text
        answer.ids += chunk.text_token_ids.tolist()
        answer.codes += chunk.speech_token_ids.tolist()
        if len(chunk.audio):
            answer.audio.append(chunk.audio)
        assert not answer.finish, "nothing follows the last response"
        answer.finish, answer.stats = chunk.finish_reason, chunk.stats
        answer.responses += 1
    answer.ended_at = time.monotonic()
    return answer


def check(name, answer):
    golden = chat_data.run(name)
    assert answer.ids == golden["text_ids"].tolist()
    assert answer.codes == golden.get("speech_ids", np.zeros(0)).tolist()
    stopped = golden["text_ids"][-1] in chat_data.config().text_ids.stop
    assert answer.finish == ("stop" if stopped else "length")


def render_offline(built, codes, hops=DEFAULT_HOPS):
    """The sound of emitted codes: each span of speech on its own, with the server's hops."""
    spans, current = [], []
    for code in codes:
        if code == SPEECH_EOS and current:
            spans.append(current)
            current = []
        elif code < FIRST_CONTROL:
            current.append(code)
    sounds = [_render_span(built, span, hops) for span in [*spans, current] if span]
    return np.concatenate([np.zeros(0, np.float32), *sounds])


def _render_span(built, codes, hops):
    flow, vocoder = onnx_flow(built / "token2wav", 1, 1), onnx_vocoder(built / "token2wav", 1, 1)
    cutter, sounds = ChunkCutter(HopPolicy(hops)), []
    for cut in [*cutter.push(codes), *cutter.finish()]:
        keys = {"stream_ids": np.array([1]), "chunk_flags": np.array([int(cut.flag)], np.int32)}
        chunk = {
            "voices": np.array([VOICE], np.object_),
            "tokens": np.array(cut.tokens, np.int32),
            "token_lengths": np.array([len(cut.tokens)], np.int32),
        }
        sounds.append(vocoder.run(keys | flow.run(keys | chunk))["audio"])
    return np.concatenate(sounds)


def scrape(server):
    """Samples of the metrics endpoint by name and labels, as in `rejects_total{reason="draining"}`."""
    with urllib.request.urlopen(server.addresses.metrics_url, timeout=20) as page:
        text = page.read().decode()
    return {name: float(value) for name, value in re.findall(rf"^{PREFIX}(\w+(?:{{[^}}]*}})?) (\S+)$", text, re.M)}


def settled(server):
    """``scrape`` once what happened before has been sent: the service sends its numbers ten times a second."""
    seen = [scrape(server)]
    while len(seen) < 2 or seen[-1] != seen[-2]:
        time.sleep(SETTLE_S)
        seen.append(scrape(server))
    return seen[-1]


def gauges(server):
    """The runtime's gauges by name alone."""
    return {name.partition("{")[0]: value for name, value in scrape(server).items()}


def rejects(server, *reasons):
    """How many requests were refused for one of them."""
    samples = scrape(server)
    return sum(int(samples[f'rejects_total{{reason="{reason}"}}']) for reason in reasons)


def unchecked(monkeypatch):
    """Has our client send sound as it is, as other clients do: the server's own refusals are asked."""
    for name in ("check_length", "check_rate", "check_samples"):
        monkeypatch.setattr(f"client.sound.samples.{name}", lambda *args: None)
