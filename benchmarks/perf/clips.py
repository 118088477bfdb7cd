"""Questions of varied lengths: sound files of a folder, or speech-like sound made here."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from client.audio_file import read_audio
from client.errors import ChatError
from client.request import DEFAULT_RATE
from client.sound.names import is_sound

# Seconds of the made questions: short and long turns of a conversation. Prime counts, so that no level of
# concurrency always gives one worker the same clip.
LENGTHS_S = (0.8, 1.3, 2.1, 3.4, 5.5)


def load_clips(folder: Path | None, rate: int = DEFAULT_RATE) -> list[np.ndarray]:
    """Clips at `rate`, longest last; those of the folder, else made ones.

    Raises:
        ChatError: the folder holds no sound file.
    """
    if folder is None:
        return [made_question(seconds, rate) for seconds in LENGTHS_S]
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_sound(path))
    if not paths:
        raise ChatError("NOT_FOUND", "audio", f"{folder} holds no sound file")
    return sorted((read_audio(path, rate)[0] for path in paths), key=len)


def made_question(seconds: float, rate: int = DEFAULT_RATE) -> np.ndarray:
    """Speech-like sound: syllables of a voice with formants, pauses between them, a pitch that moves."""
    draw = np.random.default_rng(int(seconds * 1000))
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time + draw.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowel = np.sin(2 * np.pi * 1.3 * time)  # the formants wander with it
    wave = np.zeros_like(time)
    for number in range(1, 26):
        frequency = number * pitch
        gain = sum(
            1 / (1 + ((frequency - formant) / 130) ** 2) for formant in (550 + 200 * vowel, 1500 - 500 * vowel, 2500)
        )
        wave += gain / number * np.sin(number * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time) + 0.6, 0, 1)
    wave *= syllables
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def write_input_data(clips: list[np.ndarray], path: Path) -> None:
    """perf_analyzer's ``--input-data``: one step per clip, used in turn."""
    steps = [
        {"audio": {"b64": base64.b64encode(clip.astype("<f4").tobytes()).decode(), "shape": [len(clip)]}}
        for clip in clips
    ]
    path.write_text(json.dumps({"data": steps}), "utf-8")
