"""Runs of the authors' code as files: prompts with audio rows, settings, ids, and what lies inside the first steps.

The format is that of ``tests/golden/fun_audio_chat``: ``manifest.json`` and one ``run_<case>.npz`` per case.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.parity.questions import Question, read_question
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.params import AnswerParams, SamplingParams
from runtime.scheduling.stream import Prompt, Stream

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One greedy run. ``hidden`` [steps, H] and ``logits`` of ``logits_ids`` [steps, n] are of the first steps only."""

    name: str
    prompt: Prompt
    params: AnswerParams
    text_ids: list[int]
    codes: list[int]
    hidden: np.ndarray
    logits_ids: np.ndarray
    logits: np.ndarray
    code_logits_ids: np.ndarray | None  # [steps, group, n]
    code_logits: np.ndarray | None
    raw_codes: np.ndarray | None  # [steps, group] as chosen, those that are not emitted too
    question: Question | None = None

    def stream(self, config: ModelConfig) -> Stream:
        """The run as a request."""
        return Stream(0, self.prompt, Answer(config.text_ids, config.speech_ids, self.params))


def read_vectors(folder: Path, config: ModelConfig, questions: bool = True) -> list[Recorded]:
    """All greedy runs whose audio rows are stored. Raises BuildError when there are none.

    Args:
        questions: read what was asked too, which takes a library for sound.
    """
    try:
        cases = json.loads((folder / MANIFEST).read_text("utf-8"))["cases"]
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(
            MANIFEST, f"cannot be read from {folder} ({error})", "record the authors' runs again"
        ) from None
    found = [_read(folder, name, case, config, questions) for name, case in cases.items() if not case["do_sample"]]
    runs = [run for run in found if run is not None]
    if not runs:
        raise BuildError(str(folder), "holds no greedy run with its audio rows", "record the authors' runs again")
    return runs


def _read(folder: Path, name: str, case: dict[str, Any], config: ModelConfig, asked: bool) -> Recorded | None:
    run = dict(np.load(folder / f"run_{name}.npz"))
    ids = run["prompt_ids"]
    positions = np.flatnonzero(ids == config.text_ids.audio)
    rows = _audio_rows(folder, name, run, positions)
    if rows is None or "backbone_hidden_last" not in run:
        return None
    return Recorded(
        name=name,
        prompt=Prompt(ids, rows, positions),
        params=_params(case),
        text_ids=run["text_ids"].tolist(),
        codes=run["speech_ids"].tolist() if "speech_ids" in run else [],
        hidden=run["backbone_hidden_last"],
        logits_ids=run["text_logits_top10_ids"],
        logits=run["text_logits_top10"],
        code_logits_ids=run.get("srh_logits_top10_ids"),
        code_logits=run.get("srh_logits_top10"),
        raw_codes=run.get("srh_tokens_raw"),
        question=read_question(folder, case, config.features.sample_rate) if asked else None,
    )


def _audio_rows(folder: Path, name: str, run: dict[str, np.ndarray], positions: np.ndarray) -> np.ndarray | None:
    if not len(positions):
        return np.zeros((0, run["backbone_hidden_last"].shape[1]), np.float32)
    if "audio_rows" in run:
        return run["audio_rows"]
    if "prefill_inputs_embeds" in run:
        return run["prefill_inputs_embeds"][positions]
    path = folder / f"prefill_{name}.npz"
    if not path.exists():
        return None
    with np.load(path) as prefill:
        return prefill["audio_embeds"]


def _params(case: dict[str, Any]) -> AnswerParams:
    sampling = SamplingParams(
        greedy=True,
        text_greedy=case["text_greedy"],
        repetition_penalty=case["repetition_penalty"],
        banned_pairs=tuple((a, b) for a, b in case["bad_words_ids"] or ()),
    )
    return AnswerParams(case["mode"], case["max_new_tokens"], case["force_text_abos"], sampling)
