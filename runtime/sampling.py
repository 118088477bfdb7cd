"""Ids of a step for all its streams at once, each with its own parameters, context and random numbers.

Knows streams and scores; the arithmetic is in ``kernels.sampler``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from kernels.sampler import draw, penalise, philox_uniforms, probabilities
from runtime.scheduling.stream import Stream

NOT_FINITE = -1  # in place of an id whose scores hold no finite largest one: the engine failed for this row
Uniforms = Callable[[Sequence[Stream], int], np.ndarray]


def _if_finite(chosen: torch.Tensor, scores: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Chosen ids [rows], NOT_FINITE where the score at ``largest`` is not. A NaN anywhere counts as the largest."""
    return torch.where(scores.gather(1, largest[:, None])[:, 0].isfinite(), chosen, NOT_FINITE)


def seeded_uniforms(streams: Sequence[Stream], count: int) -> np.ndarray:
    """[streams, count] numbers of each stream's seed and step."""
    seeds = np.array([s.params.sampling.seed for s in streams], np.int64)
    steps = np.array([s.answer.forwards for s in streams], np.int64)
    return philox_uniforms(seeds, steps, count)


class Choice:
    """One set of streams that choose together: parameters as tensors, penalty context, random numbers.

    Args:
        streams: one per row of scores.
        contexts: distinct ids that each row's penalty sees.
        ids: width of the scores.
        uniforms: [rows, draws], or None when every row takes an argmax.
        device: of the scores.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        contexts: Iterable[set[int]],
        ids: int,
        uniforms: np.ndarray | None,
        device: torch.device | str = "cpu",
    ) -> None:
        sampling = [s.params.sampling for s in streams]
        self._ids = ids
        self._uniforms = None if uniforms is None else torch.from_numpy(uniforms).to(device)
        self._drawn = torch.tensor(
            [i for i, s in enumerate(sampling) if not s.greedy], dtype=torch.int64, device=device
        )
        drawn = [s for s in sampling if not s.greedy]
        self._temperature = torch.tensor([[s.temperature] for s in drawn], device=device)
        self._top_k = torch.tensor([[s.top_k] for s in drawn], dtype=torch.int64, device=device)
        self._top_p = torch.tensor([[s.top_p] for s in drawn], device=device)
        self._penalised = [i for i, s in enumerate(sampling) if s.repetition_penalty != 1.0]
        self._row_penalty = torch.tensor([sampling[i].repetition_penalty for i in self._penalised], device=device)
        self._first_entry = torch.tensor([i * ids for i in self._penalised], dtype=torch.int64, device=device)
        self._seen_entries, self._seen_penalty = self._entries(list(contexts))

    def _entries(self, contexts: list[set[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = [len(contexts[i]) for i in self._penalised]
        entries = np.fromiter((i * self._ids + id_ for i in self._penalised for id_ in contexts[i]), np.int64)
        device = self._row_penalty.device
        counts = torch.tensor(sizes, dtype=torch.int64, device=device)
        return torch.from_numpy(entries).to(device), self._row_penalty.repeat_interleave(counts)

    def take(self, scores: torch.Tensor, number: int = 0) -> torch.Tensor:
        """Chooses one id per row.

        Args:
            scores: [rows, ids] float32, changed in place.
            number: which of the random numbers to use.

        Returns:
            [rows] int64, NOT_FINITE where the scores are not.
        """
        if len(self._seen_entries):
            penalise(scores, self._seen_entries, self._seen_penalty)
        largest = scores.argmax(dim=-1)
        chosen = largest.clone()
        if len(self._drawn):
            assert self._uniforms is not None
            rows = scores[self._drawn]
            distribution = probabilities(rows, self._temperature, self._top_k, self._top_p)
            chosen[self._drawn] = draw(distribution, self._uniforms[self._drawn, number])
        return _if_finite(chosen, scores, largest)

    def remember(self, chosen: torch.Tensor) -> None:
        """Adds the ids just chosen to the rows' contexts."""
        if self._penalised:
            entries = self._first_entry + chosen[self._penalised]
            self._seen_entries = torch.cat([self._seen_entries, entries])
            self._seen_penalty = torch.cat([self._seen_penalty, self._row_penalty])


class Sampler:
    """Text ids and speech codes of a step.

    Args:
        group_size: codes per frame; draw ``group_size`` of a step is the text's.
        uniforms: source of random numbers, replaced by tests.
        device: where the engines' logits are.
    """

    def __init__(
        self, group_size: int, uniforms: Uniforms = seeded_uniforms, device: torch.device | str = "cpu"
    ) -> None:
        self._group, self._draws, self._device = group_size, uniforms, device

    def speech(self, streams: Sequence[Stream], ids: int) -> Choice:
        """A group's choice: call ``take`` and ``remember`` once per code, with the code's number.

        The penalty sees the codes emitted so far and those of this group, never discarded ones.
        """
        return Choice(streams, (s.answer.spoken for s in streams), ids, self._uniforms(streams), self._device)

    def text(self, streams: Sequence[Stream], logits: torch.Tensor) -> torch.Tensor:
        """[streams] int64 text ids from logits [streams, vocabulary], NOT_FINITE where those are not."""
        largest = logits.argmax(dim=-1)
        chosen = _if_finite(largest, logits, largest)
        rows = [i for i, s in enumerate(streams) if not s.params.sampling.text_greedy]
        if rows:
            picked = [streams[i] for i in rows]
            scores = logits[rows]
            contexts = (s.text_context for s in picked)
            choice = Choice(picked, contexts, logits.shape[-1], self._uniforms(picked), self._device)
            chosen[rows] = choice.take(_ban_pairs(scores, picked), self._group)
        return chosen

    def _uniforms(self, streams: Sequence[Stream]) -> np.ndarray | None:
        if all(s.params.sampling.greedy for s in streams):
            return None
        return self._draws(streams, self._group + 1)


def _ban_pairs(scores: torch.Tensor, streams: Sequence[Stream]) -> torch.Tensor:
    # A ban is minus infinity, which the penalty before it in the reference cannot change: the order is free.
    for row, stream in enumerate(streams):
        last = stream.answer.last_text_id if stream.answer.forwards else int(stream.prompt.ids[-1])
        for before, banned in stream.params.sampling.banned_pairs:
            if before == last:
                scores[row, banned] = -torch.inf
    return scores
