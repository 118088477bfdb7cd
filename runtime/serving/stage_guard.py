"""Stage calls that always come to an end: typed errors only, and none that hangs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from client.protocol.errors import MEMORY_FULL
from runtime.contracts import AUDIO_ENCODER, SPEECH_ENCODER, TOKEN2WAV
from runtime.errors import EngineFault, ServeError, stage_fault
from runtime.logs import kind, log_fault
from runtime.serving.stages import SpeechChunk, Spoken, Stages

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


# Triton's words when a stub gave no sign of life for a second. It gives the stub's late answer to the next
# caller: measured, a stage got the batch of another call. So nothing of that server may be used any more.
UNHEALTHY = "is not healthy"
MANY_FAILURES = 20  # in a row; a few requests that each break a call are no broken stage


class StageHangs(EngineFault):
    """A stage does not come back: only a restart of the server helps."""


class FailureStreak:
    """Failures of a stage or engine since it last worked. Where one is broken they add up: releases never stop."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s, self._count, self._since = patience_s, 0, 0.0

    def over(self) -> None:
        """It works."""
        self._count = 0

    def record_failure(self) -> bool:
        """Whether failures are now too many and have lasted too long."""
        now = time.monotonic()
        self._since = self._since if self._count else now
        self._count += 1
        return self._count >= MANY_FAILURES and now - self._since > self._patience_s


class GuardedStages:
    """``Stages`` around others.

    Args:
        stages: where calls go.
        timeout_s: a call that takes longer will not come back. Triton itself would wait for ever. A stage that
            fails every call for so long is as lost: streams would wait for the places of those that it keeps.
        hung: told of such a call or stage, and of a stage that Triton gave up.
    """

    def __init__(self, stages: Stages, timeout_s: float, hung: Callable[[ServeError], None]) -> None:
        self._stages, self._timeout_s, self._hung = stages, timeout_s, hung
        self._failures = {name: FailureStreak(timeout_s) for name in (SPEECH_ENCODER.name, TOKEN2WAV.name)}

    async def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Raises EngineFault, too, when a row holds a number that is not finite."""
        rows = await self._within(SPEECH_ENCODER.name, self._stages.encode(clips))
        if not all(np.isfinite(row).all() for row in rows):
            fault = EngineFault(AUDIO_ENCODER.name, "gave numbers that are not finite", "send the request again")
            self._note(SPEECH_ENCODER.name, fault)
            raise fault
        self._failures[SPEECH_ENCODER.name].over()
        return rows

    async def speak(self, chunks: Sequence[SpeechChunk]) -> list[Spoken]:
        found = await self._within(TOKEN2WAV.name, self._stages.speak(chunks))
        # A release runs no engine: it succeeds where every chunk of sound fails.
        made = [result for chunk, result in zip(chunks, found, strict=True) if chunk.tokens]
        if made and all(isinstance(result, EngineFault) for result in made):
            self._note(TOKEN2WAV.name, made[0])
        elif made:
            self._failures[TOKEN2WAV.name].over()
        return found

    def _note(self, stage: str, fault: object) -> None:
        """One more call that failed for want of a working engine."""
        if isinstance(fault, EngineFault) and self._failures[stage].record_failure():
            self._hung(fault)

    async def _within(self, stage: str, call: Awaitable[Result]) -> Result:
        try:
            # The call itself cannot be cancelled: a thread of this process goes on waiting for it.
            return await asyncio.wait_for(call, self._timeout_s)
        except TimeoutError:
            problem = f"gave no answer within {self._timeout_s:g} s"
            error = StageHangs(stage, problem, "the server restarts: send the request again")
            self._hung(error)
            raise error from None
        except Exception as error:
            fault = _typed(stage, error)
            if UNHEALTHY in str(error):
                self._hung(fault)
            else:
                self._note(stage, fault)
            raise fault from None


def _typed(stage: str, error: Exception) -> ServeError:
    if isinstance(error, ServeError):
        return error
    # Triton's own, such as a shared memory that is full.
    log_fault(logger, f"a call of {stage} failed", error)
    if MEMORY_FULL in str(error):
        return stage_fault(str(error), stage)
    return EngineFault(stage, f"could not be called ({kind(error)})", "send the request again")
