"""Input rows for the parity cases from a checkpoint: a text for the backbone, spoken codes for the speech head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import torch

from builders.parity.cases import GENERATED
from builders.parity.play import Output, Trace
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.projections import Projections
from runtime.frontend.tokenizer import ChatTokenizer

# Ordinary text: on it the margins between the best ids are those of real use, on random ids they are tiny.
TEXT = (
    "A river is never the same twice. It rises in the hills as a thread of cold water, gathers what the rain "
    "leaves on the slopes, and by the time it meets the sea it has carried half a mountain with it. Towns grew "
    "where it could be crossed, mills where it fell, and harbours where it slowed down enough to let ships in. "
)
PROMPTS = (48, 37, 61, 24)  # backbone positions: ragged, none a multiple of a block
CODE_SEED = 11


def prompt_lengths(prefill_chunk: int) -> tuple[int, ...]:
    """Backbone positions of the prompts: ``PROMPTS``, or shorter where two of them would not fit into a chunk."""
    fullest = sum(sorted(PROMPTS)[-2:])
    return tuple(min(n, n * prefill_chunk // fullest) for n in PROMPTS)


def backbone_traces(config: ModelConfig, projections: Projections, lengths: Sequence[int]) -> list[Trace]:
    """Text traces: prompt and teacher-forced continuation, each from another place of the text."""
    text = ChatTokenizer(config.directory).encode(TEXT)
    traces = []
    for number, length in enumerate(lengths):
        ids = list(islice(cycle(text), number, number + length + GENERATED))
        traces.append(Trace(projections.embed_text(torch.tensor(ids)), length))
    return traces


def prompt_states(outputs: Sequence[Output], traces: Sequence[Trace]) -> list[torch.Tensor]:
    """Final hidden states [prompt, hidden] of each prompt, from cases that ran all of them."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    for output in outputs:
        assert output.hidden is not None, "the backbone gives hidden states"
        begin = output.piece.begin
        found |= {(output.piece.trace, begin + i): row for i, row in enumerate(output.hidden)}
    return [torch.stack([found[n, i] for i in range(trace.prompt)]) for n, trace in enumerate(traces)]


def speech_traces(
    config: ModelConfig, projections: Projections, backbone: Sequence[Trace], hidden: Sequence[torch.Tensor]
) -> list[Trace]:
    """What the speech head sees of the same text: prompts after the begin code, then groups of random codes.

    Args:
        backbone: the traces of the backbone.
        hidden: its final hidden states of each prompt [prompt, hidden].
    """
    ids, generator = config.speech_ids, torch.Generator().manual_seed(CODE_SEED)
    traces = []
    for trace, states in zip(backbone, hidden, strict=True):
        rows = projections.spread(states, trace.rows[: trace.prompt]).flatten(0, 1)
        prompt = len(rows) - (ids.group_size - 1)
        # Positions after the prompt: the rest of its last group, then the last group again as often as needed.
        tail = list(islice(cycle(range(len(rows) - ids.group_size, len(rows))), 1, 1 + GENERATED))
        codes = torch.randint(ids.codebook_size, (GENERATED,), generator=generator)
        first = projections.speech_inputs(rows[:prompt], torch.tensor(ids.bos))
        traces.append(Trace(torch.cat([first, projections.speech_inputs(rows[tail], codes)]), prompt))
    return traces
