"""From the tensors of a request to a stream that the frame loop can run. Lives in the asyncio thread."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from runtime.errors import NotFound, ServeError
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.prompt import PromptBuilder, shared_length
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.requests.limits import RequestLimits
from runtime.requests.parse import ChatRequest, parse_request
from runtime.scheduling.scheduler import Scheduler
from runtime.scheduling.stream import Prompt, Stream
from runtime.serving.admission import Ticket
from runtime.serving.door import Incoming
from runtime.serving.encode_queue import EncodeQueue
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


class Intake:
    """Checks requests, builds their prompts, has their sound encoded."""

    def __init__(
        self,
        options: Options,
        limits: RequestLimits,
        config: ModelConfig,
        tokenizer: ChatTokenizer,
        scheduler: Scheduler,
        stages: Stages,
        sound: Sizes,
    ) -> None:
        self._config, self._scheduler, self._voices = config, scheduler, sound.voices
        self._limits = limits
        self._prompts = PromptBuilder(config, tokenizer)
        serving = options.serving
        self._encoder = EncodeQueue(stages, int(serving.encode_s * config.features.sample_rate), serving.gather_s)
        # Under full attention a frame depends on its whole call, so there chunks are never joined.
        block = 0 if options.token2wav.full_attention else sound.block_tokens
        self._hops = HopPolicy(options.token2wav.hops, sound.lookahead, block)
        self._keys = itertools.count()
        self._workers = ThreadPoolExecutor(SOUND_WORKERS, "sound")

    async def prepare(self, incoming: Incoming) -> Prepared:
        """Raises InvalidRequest, NotFound, what the encoder raises, and the ticket's refusal."""
        ticket, features = incoming.ticket, self._config.features
        ticket.check()
        audio, lengths = incoming.arrays.get("audio"), incoming.arrays.get("audio_lengths")
        samples = 0 if audio is None else audio.size
        clips = await self._aside(samples > QUICK_CHECK, ticket, lambda: split_clips(audio, lengths))
        request = parse_request(incoming.arrays, incoming.parameters, clips, features.sample_rate)
        if request.conversation:  # what else was sent was measured at the door
            self._limits.check_messages(request.messages)
        voice = self._voice(request)
        rate, spoken = request.sample_rate, list(request.clips)
        slow = rate != features.sample_rate and samples > QUICK_RESAMPLE
        clips = await self._aside(slow, ticket, lambda: to_model_rate(spoken, rate, features, self._limits.clip_s))
        stream = self._stream(request, clips)
        stream.priority = ticket.priority
        self._scheduler.check_fits(stream)
        ticket.need = self._scheduler.need(stream.max_positions, stream.params.speaks)
        if len(stream.prompt.audio_positions):
            encoded = self._encoder.encode(clips, ticket.priority)
            ticket.end = partial(_end, encoded)
            stream.prompt.audio_embeds[:] = np.concatenate([part for part in await encoded if len(part)])
            ticket.check()
        return Prepared(stream, voice, replace(self._hops, hops=request.hops or self._hops.hops))

    async def _aside(self, slow: bool, ticket: Ticket, work: Callable[[], Result]) -> Result:
        """Work on sound, in another thread if it is slow; a refusal or a cancel does not wait for its end."""
        if not slow:
            return work()
        done = asyncio.get_running_loop().run_in_executor(self._workers, work)
        ticket.end = partial(_abandon, done)
        try:
            return await done
        finally:
            ticket.check()  # a refusal, which cancelled the wait

    def _stream(self, request: ChatRequest, clips: list[np.ndarray]) -> Stream:
        config = self._config
        ids = self._prompts.build(request.messages, [len(clip) for clip in clips])
        positions = np.flatnonzero(ids == config.text_ids.audio)
        rows = np.zeros((len(positions), config.backbone.hidden_size), np.float32)
        shared = shared_length(request.messages, ids, config.text_ids.stop)
        params = request.params
        if request.any_length:
            params = replace(params, max_tokens=min(params.max_tokens, self._scheduler.room(len(ids))))
        answer = Answer(config.text_ids, config.speech_ids, params)
        return Stream(next(self._keys), Prompt(ids, rows, positions, shared), answer)

    def _voice(self, request: ChatRequest) -> str:
        if request.voice is None:
            return self._voices[0]
        if request.voice not in self._voices:
            raise NotFound("voice", f"{request.voice[:40]!r} is not known", f"use one of {', '.join(self._voices)}")
        return request.voice


def _abandon(done: asyncio.Future[Any], _: ServeError) -> None:
    done.cancel()


def _end(encoded: asyncio.Future[list[np.ndarray]], error: ServeError) -> None:
    if not encoded.done():
        encoded.set_exception(error)
