"""Two engines in lockstep over the plans of the scheduler: one packed call of the backbone, then a call per code.

Every prompt position passes through the speech head too, so its cache is as long as the backbone's times the group
size, and it runs at every step, in or out of speech. Ids are chosen on the device between the calls and not waited
for: positions, blocks and lengths are known to the host without any id, so it may pack step after step ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Packer, Row, advance
from runtime.families.fun_audio_chat.decisions import Decisions
from runtime.families.fun_audio_chat.projections import Projections
from runtime.frames.batches import PlacedSlots
from runtime.graphs.executor import Executor, Fetch
from runtime.scheduling.scheduler import Chunk, Plan
from runtime.scheduling.stream import Stream


class PackedModel:
    """``QueuedModel`` over two engines with packed bindings."""

    def __init__(
        self,
        executor: Executor,
        backbone: tuple[Engine, KvCache],
        speech: tuple[Engine, KvCache],
        projections: Projections,
        decisions: Decisions,
    ) -> None:
        self.engines = backbone[0], speech[0]
        self._packer, self._speech_packer = (
            Packer(e.shape, cache, e.pool_address()) for e, cache in (backbone, speech)
        )
        self.state, self._decisions, self._executor = decisions.state, decisions, executor
        self._projections, self._ids = projections, decisions.state.sizes.speech_ids
        most, padding = self.state.sizes.slots, self.state.padding
        self._deciding, self._speaking = (PlacedSlots(executor, most, padding) for _ in range(2))
        self._begin = torch.tensor(self._ids.bos, device=executor.device)
        # What a frame found; it is on its way to the host before the next one overwrites it.
        self._found = torch.zeros(most, 1 + self._ids.group_size, dtype=torch.int64, device=executor.device)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Runs everything but the engines once, on padding: kernels are compiled at their first use."""
        state, slots = self.state, self._deciding.tensor[:1]
        text = torch.zeros(1, state.sizes.vocabulary, device=self._executor.device)
        codes = text.new_zeros(1, state.sizes.speech_ids.codebook_size)
        self._decisions.take_text(slots, self._decisions.embed(slots), text)
        self._decisions.take_group(slots, lambda x, number: codes)
        self._decisions.accept(slots, self._found[:1])
        self._executor.fetch(self._found).wait()  # memory on the host for the largest result

    @torch.inference_mode()
    def queue(self, plan: Plan) -> Fetch | None:
        for copy in plan.copies:
            self.engines[copy.cache].copy_block(copy.source, copy.target)
        for chunk in plan.contexts:
            if chunk.first:
                self.state.admit(chunk.stream)
        deciding = plan.deciding
        slots = self._deciding.place([stream.slot for stream in deciding])
        prompts = self._step_backbone(plan, slots)
        self._step_speech(plan, prompts)
        if not deciding:
            return None
        found = self._found[: len(deciding)]
        self._decisions.accept(slots, found)
        return self._executor.fetch(found)

    def _step_backbone(self, plan: Plan, slots: torch.Tensor) -> list[torch.Tensor]:
        """One packed call. Returns the sub-positions of each speaking context [length, G, H]."""
        contexts, running = plan.contexts, plan.generations
        pairs = [self._projections.embed_prompt(c.stream.prompt, c.begin, c.length) for c in contexts]
        parts = [mixed for mixed, _ in pairs]
        if running:
            parts.append(self._decisions.embed(slots[len(slots) - len(running) :]))
        rows = [Row(c.stream.slot, c.begin, c.length, len(c.stream.prompt), True) for c in contexts]
        rows += [Row(s.slot, s.position - 1, 1, len(s.prompt), False) for s in running]
        out = self.engines[0].run(_join(parts), self._packer.pack(rows))
        hidden = out.hidden_states.split([*(c.length for c in contexts), len(running)])
        if len(slots):
            last = [h[-1:] for c, h in zip(contexts, hidden, strict=False) if c.last]
            self._decisions.take_text(slots, _join([*last, hidden[-1]]), _last_rows(out.logits, contexts))
        return [
            self._projections.spread(h, plain)
            for c, h, (_, plain) in zip(contexts, hidden, pairs, strict=False)
            if c.stream.params.speaks
        ]

    def _step_speech(self, plan: Plan, prompts: Sequence[torch.Tensor]) -> None:
        """The first packed call with all sub-positions of contexts, then one call for each further code."""
        contexts = [chunk for chunk in plan.contexts if chunk.stream.params.speaks]
        streams = [stream for stream in plan.deciding if stream.params.speaks]
        inputs = [self._prompt_rows(chunk, spread) for chunk, spread in zip(contexts, prompts, strict=True)]
        if not streams:
            if contexts:
                self.engines[1].run(_join(inputs), self._speech_packer.pack(self._first_rows(contexts, streams)))
            return
        slots = self._speaking.place([stream.slot for stream in streams])
        finished = sum(chunk.last for chunk in contexts)
        bindings = self._speech_packer.pack(self._first_rows(contexts, streams))

        def logits_of(x: torch.Tensor, number: int) -> torch.Tensor:
            nonlocal bindings
            if number == 0:
                logits = self.engines[1].run(_join([*inputs, x[finished:]]), bindings).logits
                return _last_rows(logits, contexts)
            # From the second code on, streams that just finished their prompt generate like the others.
            anew = number == 1 and contexts
            bindings = self._speech_packer.pack(self._rows(streams, 1)) if anew else advance(bindings)
            return self.engines[1].run(x, bindings).logits

        self._decisions.take_group(slots, logits_of)

    @torch.inference_mode()
    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        for engine, which in zip(self.engines, blocks, strict=False):
            engine.scrub(which)

    def _prompt_rows(self, chunk: Chunk, spread: torch.Tensor) -> torch.Tensor:
        """Every sub-position after the begin code; of the prompt's last position only the first."""
        flat, tail = spread.flatten(0, 1), self._ids.group_size - 1
        return self._projections.speech_inputs(flat[:-tail] if chunk.last else flat, self._begin)

    def _first_rows(self, contexts: list[Chunk], streams: list[Stream]) -> list[Row]:
        """Rows of the speech head's first call: all sub-positions of contexts, one for each running stream."""
        group, rows = self._ids.group_size, []
        for chunk in contexts:
            length = group * chunk.length - (group - 1 if chunk.last else 0)
            rows.append(Row(chunk.stream.slot, group * chunk.begin, length, self._prompt_length(chunk.stream), True))
        finished = sum(chunk.last for chunk in contexts)
        return rows + self._rows(streams[finished:], 0)

    def _rows(self, streams: Sequence[Stream], number: int) -> list[Row]:
        """Generation rows of sub-position ``number`` of the streams' newest backbone position."""
        group = self._ids.group_size
        return [Row(s.slot, group * (s.position - 1) + number, 1, self._prompt_length(s), False) for s in streams]

    def _prompt_length(self, stream: Stream) -> int:
        return self._ids.group_size * (len(stream.prompt) - 1) + 1


def _last_rows(logits: torch.Tensor, contexts: Sequence[Chunk]) -> torch.Tensor:
    """Rows of the sequences that decide: of contexts those that are complete, and all others."""
    if all(chunk.last for chunk in contexts):
        return logits
    found = [logits[i : i + 1] for i, chunk in enumerate(contexts) if chunk.last]
    return _join([*found, logits[len(contexts) :]])


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else torch.cat(filled)
