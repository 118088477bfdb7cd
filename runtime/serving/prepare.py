"""From the tensors of a request to a stream that the frame loop can run. Lives in the asyncio thread."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from runtime.errors import NotFound
from runtime.families.base import Family
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.options import Options
from runtime.requests.limits import RequestLimits
from runtime.requests.messages import Message
from runtime.requests.parse import answer_params, read_messages
from runtime.scheduling.scheduler import Scheduler
from runtime.scheduling.stream import Stream
from runtime.serving.encode_queue import EncodeQueue
from runtime.serving.request import Request
from runtime.serving.stages import Stages
from runtime.token2wav.hops import HopPolicy
from runtime.token2wav.layout import Sizes

Result = TypeVar("Result")

SOUND_WORKERS = 2  # a long clip does not hold the next one up; more would take the cores of the frame loop
# Samples that cost less than a millisecond: looked through, and resampled. More leave the event loop free.
QUICK_CHECK, QUICK_RESAMPLE = 1_000_000, 200_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stream for the frame loop, and how its answer will sound."""

    stream: Stream
    voice: str
    hops: HopPolicy


class Preparation:
    """Checks requests, builds their prompts, has their sound encoded."""

    def __init__(
        self,
        options: Options,
        limits: RequestLimits,
        family: Family,
        scheduler: Scheduler,
        stages: Stages,
        sound: Sizes,
    ) -> None:
        self._family, self._scheduler, self._voices = family, scheduler, sound.voices
        self._limits = limits
        serving = options.serving
        self.encoder = EncodeQueue(stages, int(serving.encode_s * family.features.sample_rate), serving.gather_s)
        # Under full attention a frame depends on its whole call, so there chunks are never joined.
        block = 0 if options.token2wav.full_attention else sound.block_tokens
        self._hops = HopPolicy(options.token2wav.hops, sound.lookahead, block)
        self._keys = itertools.count()
        self._workers = ThreadPoolExecutor(SOUND_WORKERS, "sound")

    async def prepare(self, request: Request) -> Prepared:
        """Raises InvalidRequest, NotFound, and what the encoder raises."""
        given, ticket = request.parameters, request.ticket
        clips, messages = await self._split(request)
        voice = self._voice(given.voice)
        clips = await self._resample(clips, given.sample_rate)
        stream = self._stream(request, messages, [len(clip) for clip in clips])
        stream.priority = ticket.priority
        self._scheduler.check_fits(stream)
        ticket.need = self._scheduler.need(stream.max_positions, stream.params.speaks)
        if len(stream.prompt.audio_positions):
            encoded = await self.encoder.encode(clips, ticket.priority)
            stream.prompt.audio_embeds[:] = np.concatenate([part for part in encoded if len(part)])
        return Prepared(stream, voice, replace(self._hops, hops=given.hops or self._hops.hops))

    async def _split(self, request: Request) -> tuple[list[np.ndarray], list[Message]]:
        audio, lengths = request.arrays.get("audio"), request.arrays.get("audio_lengths")
        slow = audio is not None and audio.size > QUICK_CHECK
        clips = await self._in_pool(slow, lambda: split_clips(audio, lengths))
        return clips, read_messages(
            request.arrays, request.parameters, len(clips), self._family.system_prompts, self._limits
        )

    async def _resample(self, clips: list[np.ndarray], rate: int) -> list[np.ndarray]:
        features, longest_s = self._family.features, self._limits.clip_s
        slow = rate != features.sample_rate and sum(map(len, clips)) > QUICK_RESAMPLE
        return await self._in_pool(slow, lambda: to_model_rate(clips, rate, features, longest_s))

    async def _in_pool(self, slow: bool, work: Callable[[], Result]) -> Result:
        """Runs slow work in the pool, other work at once; cancelling does not wait for the pool."""
        if not slow:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _stream(self, request: Request, messages: Sequence[Message], samples: Sequence[int]) -> Stream:
        prompt = self._family.prompt(messages, samples)
        room = self._scheduler.room(len(prompt))
        params = answer_params(request.parameters, request.arrays.get("warmup_tokens"), room)
        return Stream(next(self._keys), prompt, self._family.answer(params))

    def _voice(self, name: str | None) -> str:
        if name is None:
            return self._voices[0]
        if name not in self._voices:
            raise NotFound("voice", f"{name[:40]!r} is not known", f"use one of {', '.join(self._voices)}")
        return name
