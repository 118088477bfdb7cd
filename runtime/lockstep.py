"""Backbone and speech head in lockstep: one packed call of the first, ``group_size`` of the second per step.

Knows the two engines, their caches and the projections between them; knows nothing of queues,
clients or text. Source of the rules: reference, sections 2.4 and 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Bindings, Packer, Row, advance
from runtime.families.fun_audio_chat.config import SpeechIds
from runtime.families.fun_audio_chat.projections import Projections
from runtime.sampling import Sampler
from runtime.scheduling.scheduler import Chunk, Plan
from runtime.scheduling.stream import Stream


@dataclass(frozen=True, slots=True)
class BackboneRows:
    """Rows of a step, packed: final hidden states and plain text embeddings [rows, H], logits [deciding, V]."""

    hidden: torch.Tensor
    text: torch.Tensor
    logits: torch.Tensor


class Lockstep:
    """Both engines over one plan."""

    def __init__(
        self,
        backbone: tuple[Engine, KvCache],
        speech: tuple[Engine, KvCache],
        projections: Projections,
        speech_ids: SpeechIds,
    ) -> None:
        self._backbone, self._speech = self._engines = backbone[0], speech[0]
        self._packer = Packer(backbone[0].shape, backbone[1], backbone[0].pool_address())
        self._speech_packer = Packer(speech[0].shape, speech[1], speech[0].pool_address())
        self._projections, self._ids = projections, speech_ids
        #: Last group of every slot [slots, G]; its last code is carried into the next group.
        shape = backbone[0].shape.max_batch_size, speech_ids.group_size
        self._codes = torch.zeros(shape, dtype=torch.int64, device=projections.device)

    @torch.inference_mode()
    def run_backbone(self, plan: Plan) -> BackboneRows:
        """One packed call for every context chunk and every generating stream, and the plan's copies before it."""
        self._copy(plan)
        pairs = [self._projections.embed_prompt(c.stream.prompt, c.begin, c.length) for c in plan.contexts]
        if plan.generations:
            pairs.append(self._embed_generations(plan.generations))
        inputs, text = (_join(rows) for rows in zip(*pairs, strict=True))
        rows = [Row(c.stream.slot, c.begin, c.length, len(c.stream.prompt), True) for c in plan.contexts]
        rows += [Row(s.slot, s.position - 1, 1, len(s.prompt), False) for s in plan.generations]
        out = self._backbone.run(inputs, self._packer.pack(rows))
        logits = out.logits
        if not all(chunk.last for chunk in plan.contexts):
            logits = logits[[i for i in range(len(rows)) if i >= len(plan.contexts) or plan.contexts[i].last]]
        return BackboneRows(out.hidden_states, text, logits)

    def _copy(self, plan: Plan) -> None:
        for copy in plan.copies:
            self._engines[copy.cache].copy_block(copy.source, copy.target)

    @torch.inference_mode()
    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Clears blocks of the backbone's cache and, where given, of the speech head's."""
        for engine, which in zip(self._engines, blocks, strict=False):
            engine.scrub(which)

    def _embed_generations(self, streams: Sequence[Stream]) -> tuple[torch.Tensor, torch.Tensor]:
        text = self._projections.embed_text(torch.tensor([s.answer.last_text_id for s in streams]))
        fed = [i for i, s in enumerate(streams) if s.answer.feeding]
        if not fed:
            return text, text
        mixed = text.clone()
        mixed[fed] = self._projections.mix_feedback(text[fed], self._codes[[streams[i].slot for i in fed]])
        return mixed, text

    @torch.inference_mode()
    def run_speech(self, plan: Plan, rows: BackboneRows, sampler: Sampler) -> dict[Stream, list[int]]:
        """The groups of all speaking streams of the plan that decide in this step.

        Every prompt position passes through the speech head too, so its cache is as long as the
        backbone's times the group size, and it runs at every step, in or out of speech.
        """
        contexts = [chunk for chunk in plan.contexts if chunk.stream.params.speaks]
        streams = [c.stream for c in contexts if c.last] + [s for s in plan.generations if s.params.speaks]
        if not contexts and not streams:
            return {}
        spread, generation_spread = self._spread(plan, rows)
        inputs = self._first_inputs(contexts, spread, streams, generation_spread)
        bindings = self._speech_packer.pack(self._first_rows(contexts, streams))
        logits = self._speech.run(inputs, bindings).logits
        if not streams:
            return {}
        if len(logits) != len(streams):
            logits = logits[[r for r in range(len(logits)) if r >= len(contexts) or contexts[r].last]]
        last_spread = [s[-1:] for c, s in zip(contexts, spread, strict=True) if c.last]
        # From the second code on, streams that just finished their prompt generate like the others.
        bindings = self._speech_packer.pack(self._rows(streams, 1)) if contexts else advance(bindings)
        group = self._choose_group(streams, logits, _join([*last_spread, generation_spread]), bindings, sampler)
        self._codes[[s.slot for s in streams]] = group.clamp(min=0)
        return dict(zip(streams, group.tolist(), strict=True))

    def _choose_group(
        self, streams: list[Stream], logits: torch.Tensor, spread: torch.Tensor, bindings: Bindings, sampler: Sampler
    ) -> torch.Tensor:
        """Codes [streams, G] one after another: the first from ``logits``, each next one fed by the one before."""
        choice = sampler.speech(streams, self._ids.codebook_size)
        codes = [choice.take(logits, 0)]
        for number in range(1, self._ids.group_size):
            last = codes[-1].clamp(min=0)  # a row that is not finite goes on until its stream is ended
            choice.remember(last)
            inputs = self._projections.speech_inputs(spread[:, number], last)
            codes.append(choice.take(self._speech.run(inputs, bindings).logits, number))
            bindings = advance(bindings)
        return torch.stack(codes, dim=1)

    def _spread(self, plan: Plan, rows: BackboneRows) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Sub-positions of each speaking context [length, G, H] and of all speaking generations [n, G, H]."""
        lengths = [c.length for c in plan.contexts]
        spread = self._projections.spread(rows.hidden, rows.text).split([*lengths, len(plan.generations)])
        speaking = [i for i, s in enumerate(plan.generations) if s.params.speaks]
        generations = spread[-1] if len(speaking) == len(plan.generations) else spread[-1][speaking]
        return [s for c, s in zip(plan.contexts, spread, strict=False) if c.stream.params.speaks], generations

    def _first_inputs(
        self, contexts: list[Chunk], spread: list[torch.Tensor], streams: list[Stream], generations: torch.Tensor
    ) -> torch.Tensor:
        """Rows of the first call: all sub-positions of contexts after the begin code, one per generation."""
        begin = torch.tensor(self._ids.bos, device=self._codes.device)
        tail = self._ids.group_size - 1
        parts = []
        for chunk, sub in zip(contexts, spread, strict=True):
            flat = sub.flatten(0, 1)
            parts.append(self._projections.speech_inputs(flat[:-tail] if chunk.last else flat, begin))
        running = [s.slot for s in streams[len(streams) - len(generations) :]]
        if running:
            parts.append(self._projections.speech_inputs(generations[:, 0], self._codes[running, -1]))
        return _join(parts)

    def _first_rows(self, contexts: list[Chunk], streams: list[Stream]) -> list[Row]:
        group = self._ids.group_size
        rows = []
        for chunk in contexts:
            length = group * chunk.length - (group - 1 if chunk.last else 0)
            rows.append(Row(chunk.stream.slot, group * chunk.begin, length, self._prompt(chunk.stream), True))
        finished = sum(chunk.last for chunk in contexts)
        return rows + self._rows(streams[finished:], 0)

    def _rows(self, streams: Sequence[Stream], number: int) -> list[Row]:
        """Generation rows of sub-position ``number`` of the streams' newest backbone position."""
        group = self._ids.group_size
        return [Row(s.slot, group * (s.position - 1) + number, 1, self._prompt(s), False) for s in streams]

    def _prompt(self, stream: Stream) -> int:
        return self._ids.group_size * (len(stream.prompt) - 1) + 1


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
