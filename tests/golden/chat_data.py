"""The golden set of the language side as values: cases, prompts, parameters."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from builders.parity.questions import messages_of
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.prompt import shared_length
from runtime.frames.loop import FrameLoop
from runtime.params import AnswerParams, SamplingParams
from runtime.requests.messages import Message
from runtime.scheduling.stream import Prompt, Stream

FOLDER = Path(__file__).parent / "fun_audio_chat"
CHECKPOINT = FOLDER / "checkpoint"


@cache
def cases(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    return json.loads((folder / "manifest.json").read_text())["cases"]


@cache
def config() -> ModelConfig:
    return ModelConfig.read(CHECKPOINT)


def run(name: str, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"run_{name}.npz"))


def prefill(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / f"prefill_{name}.npz"))


def wav(name: str) -> np.ndarray:
    import soundfile  # ids and rows that come from files need no library for sound

    samples, rate = soundfile.read(FOLDER / "audio" / f"{name}.flac", dtype="float32")
    assert rate == 16000
    return samples


def params(name: str, folder: Path = FOLDER) -> AnswerParams:
    case = cases(folder)[name]
    sampling = SamplingParams(
        greedy=not case["do_sample"],
        text_greedy=case["text_greedy"],
        temperature=case["temperature"] or 1.0,
        top_p=case["top_p"] or 1.0,
        top_k=case["top_k"] or 0,
        repetition_penalty=case["repetition_penalty"],
        banned_pairs=tuple((a, b) for a, b in case["bad_words_ids"] or ()),
    )
    return AnswerParams(case["mode"], case["max_new_tokens"], case["force_text_abos"], sampling)


def messages(name: str, folder: Path = FOLDER) -> list[Message]:
    """The case's conversation."""
    return list(messages_of(cases(folder)[name]["conversation"]))


def stream(name: str, audio_embeds: np.ndarray, key: int = 0, folder: Path = FOLDER) -> Stream:
    """Of a golden set in ``folder``; all of them have the same tokenizer and codebook."""
    ids = run(name, folder)["prompt_ids"]
    shared = shared_length(messages(name, folder), ids, config().text_ids.stop)
    prompt = Prompt(ids, audio_embeds, np.flatnonzero(ids == config().text_ids.audio), shared)
    return Stream(key, prompt, Answer(config().text_ids, config().speech_ids, params(name, folder)))


def recorded_uniforms(streams: list[Stream], draws: int, numbers: np.ndarray, text_greedy: bool) -> np.ndarray:
    """The recorded random numbers of a sampled case, in the shape that the sampler asks for."""
    per_forward = draws - 1 if text_greedy else draws
    row = numbers.reshape(-1, per_forward)[streams[0].answer.forwards]
    return np.pad(row, (0, draws - per_forward))[None]


def answers(loop: FrameLoop, streams: list[Stream]) -> list[tuple[list[int], list[int]]]:
    """Runs streams together, one joining per step: text ids and codes of each."""
    waiting, texts, codes = list(streams), {s: [] for s in streams}, {s: [] for s in streams}
    while waiting or loop.scheduler.live or loop.scheduler.waiting:
        if waiting:
            loop.add(waiting.pop(0))
        for item in loop.step():
            texts[item.stream].extend(item.frame.text_ids)
            codes[item.stream].extend(item.frame.codes)
    return [(texts[stream], codes[stream]) for stream in streams]
