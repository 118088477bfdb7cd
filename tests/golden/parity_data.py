"""The golden runs as traces for the parity cases: input rows, and what the authors' code made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import chat_data as data
import numpy as np
import torch

from builders.parity.cases import GENERATED
from builders.parity.play import Trace
from runtime.families.fun_audio_chat.projections import Projections
from runtime.scheduling.stream import Prompt

CLIPS = ("noise_2p3s", "chirp_0p5s", "tones_7s", "mix_31s")


@dataclass
class Golden:
    """A trace, and recorded values by position: hidden rows, logits, and the ten highest logits."""

    trace: Trace
    hidden: dict[int, np.ndarray] = field(default_factory=dict)
    logits: dict[int, np.ndarray] = field(default_factory=dict)
    top10: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def backbone(clip: str, weights: dict[str, torch.Tensor]) -> Golden:
    prefill, run = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    ids = prefill["prompt_ids"]
    prompt = Prompt(ids, prefill["audio_embeds"], np.flatnonzero(ids == data.config().text_ids.audio))
    rows, _ = Projections(data.config(), weights).embed_prompt(prompt, 0, len(ids))
    steps = torch.from_numpy(run["backbone_step_inputs"][:GENERATED])
    golden = Golden(Trace(torch.cat([rows, steps]), len(ids)))
    golden.hidden = dict(enumerate(prefill["backbone_hidden_states"][-1]))
    golden.logits[len(ids) - 1] = prefill["text_logits"][-1]
    for number in range(GENERATED + 1):
        position = len(ids) - 1 + number
        golden.hidden[position] = run["backbone_hidden_last"][number]
        golden.top10[position] = run["text_logits_top10_ids"][number], run["text_logits_top10"][number]
    return golden


def speech(clip: str, weights: dict[str, torch.Tensor]) -> Golden:
    prefill, run = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    config, projections = data.config(), Projections(data.config(), weights)
    group, bos = config.speech_ids.group_size, torch.tensor(config.speech_ids.bos)
    hidden = torch.from_numpy(prefill["backbone_hidden_states"][-1])
    text = projections.embed_text(torch.from_numpy(prefill["prompt_ids"]))
    prompt = projections.spread(hidden, text).flatten(0, 1)[: 1 - group]
    rows = [projections.speech_inputs(prompt, bos)]
    codes = torch.from_numpy(run["srh_tokens_raw"])
    sums = torch.from_numpy(run["srh_input_last"])  # hidden + text of the position that each group belongs to
    spread = projections.spread(sums, torch.zeros_like(sums))
    golden = Golden(Trace(rows[0], len(prompt)))
    first = len(prompt) - 1
    recorded = prefill["srh_prefill_hidden"]
    golden.hidden = {first - len(recorded) + 1 + i: row for i, row in enumerate(recorded)}
    golden.logits[first] = prefill["srh_prefill_logits_last"]
    for number in range(GENERATED + 1):
        step, sub = divmod(number, group)
        if number:
            before = codes[step, sub - 1] if sub else codes[step - 1, -1]
            rows.append(projections.speech_inputs(spread[step, sub : sub + 1], before))
        golden.hidden[first + number] = run["srh_hidden"][step, sub]
        golden.top10[first + number] = run["srh_logits_top10_ids"][step, sub], run["srh_logits_top10"][step, sub]
    golden.trace = Trace(torch.cat(rows), len(prompt))
    return golden
