"""What the flow keeps of a stream between calls, and what it renders of it in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime.token2wav.flow.cache import StreamCache


@dataclass(slots=True)
class FlowState:
    """Speaker, caches, tokens from just before the last complete block on, frames given."""

    speaker: np.ndarray
    cache: StreamCache
    tokens: list[int] = field(default_factory=list)
    dropped: int = 0  # tokens before those
    given: int = 0

    def save(self) -> Callable[[], bool]:
        """What puts all this back; it cannot (False) once blocks were written into the caches."""
        tokens, dropped, given, written = list(self.tokens), self.dropped, self.given, self.cache.written

        def restore() -> bool:
            self.tokens, self.dropped, self.given = tokens, dropped, given
            return self.cache.written == written

        return restore


@dataclass(slots=True)
class Rendering:
    """A chunk being rendered: up to absolute frame ``end``, in pieces."""

    state: FlowState
    end: int
    final: bool
    done: int
    pieces: list[np.ndarray] = field(default_factory=list)
    failed: bool = False  # a frame was not finite


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames ``first .. first + frames - 1`` of one stream, of which ``blocks`` complete blocks stay."""

    rendering: Rendering
    first: int
    frames: int
    blocks: int
