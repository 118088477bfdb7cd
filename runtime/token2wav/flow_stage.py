"""The flow as a stage: state of every stream, new tokens in, new mel frames out.

A stream's state is its tokens; every call renders them again and keeps the new frames: all but those
of the last tokens, which are only looked at until the stream ends. All streams of a call share one
batch. Knows the ``flow`` contract and numpy, not what runs the graphs. Source: reference section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.errors import InvalidRequest, NotFound
from runtime.token2wav.chunks import Arrays, Chunk, Graph, StreamTable, read_chunks
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise

UNBOUNDED = 1 << 30  # frames; a block that no stream fills: full attention


@dataclass(slots=True)
class FlowState:
    """Tokens so far, frames given, and the speaker's vector."""

    speaker: np.ndarray
    tokens: list[int] = field(default_factory=list)
    frames_given: int = 0


class FlowStage:
    """Tokens to mel for many streams.

    Args:
        sizes: of the exported folder.
        front: tokens, valid, embedding -> mu, speaker.
        step: x, mu, speaker, frames, block, step -> next.
        voices: names to raw speaker vectors.
        mel_noise: start of the ODE by absolute frame.
        max_streams: most streams with state.
        full_attention: every frame sees all frames of its call, as in the authors' demo server, instead
            of those up to the end of its own block.
    """

    def __init__(
        self,
        sizes: Sizes,
        front: Graph,
        step: Graph,
        voices: dict[str, np.ndarray],
        mel_noise: Noise,
        max_streams: int,
        full_attention: bool = False,
    ) -> None:
        self._sizes, self._front, self._step = sizes, front, step
        self._voices, self._noise = voices, mel_noise
        self._block = np.array([UNBOUNDED if full_attention else sizes.block_frames])
        self.states: StreamTable[FlowState] = StreamTable("flow", max_streams)

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.FLOW``: chunks of several streams, packed, to their new mel frames, packed.

        Raises:
            InvalidRequest, NotFound, Overloaded: the call as a whole is refused and changes nothing.
        """
        chunks = read_chunks(arrays, "tokens", "token_lengths")
        voices = [bytes(voice).decode("utf-8", "replace") for voice in arrays["voices"]]
        self._check(chunks, voices, arrays["tokens"])
        with self.states.serving(chunks):
            states = [self._update(chunk, voice) for chunk, voice in zip(chunks, voices, strict=True)]
            mels = self._new_frames(chunks, states)
        lengths = [
            STATE_LOST if state is None and not chunk.flag & ChunkFlag.RELEASE else mel.shape[1]
            for chunk, state, mel in zip(chunks, states, mels, strict=True)
        ]
        empty = np.zeros((self._sizes.mel_bins, 0), np.float32)
        return {"mel": np.concatenate([empty, *mels], axis=1), "mel_lengths": np.array(lengths, np.int32)}

    def _check(self, chunks: Sequence[Chunk], voices: Sequence[str], tokens: np.ndarray) -> None:
        if len(voices) != len(chunks):
            raise InvalidRequest("voices", f"has {len(voices)} entries for {len(chunks)} chunks", "give one per chunk")
        for chunk, voice in zip(chunks, voices, strict=True):
            if chunk.part is None:
                raise InvalidRequest("token_lengths", f"holds {STATE_LOST}", "lengths count from 0")
            if chunk.flag & ChunkFlag.START and voice not in self._voices:
                raise NotFound("voices", f"{voice[:40]!r} is not known", f"use one of {', '.join(self._voices)}")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self._sizes.vocab_size:
            raise InvalidRequest("tokens", "holds control codes", f"send codes below {self._sizes.vocab_size}")
        self.states.check_room(chunks)

    def _update(self, chunk: Chunk, voice: str) -> FlowState | None:
        """The stream's state with the new tokens; None when there is none (lost, or to be released)."""
        if chunk.flag & ChunkFlag.RELEASE:
            return None
        if chunk.flag & ChunkFlag.START:
            self.states.start(chunk.stream_id, FlowState(self._voices[voice]))
        state = self.states.get(chunk.stream_id)
        if state is not None and chunk.part is not None:
            state.tokens += chunk.part.tolist()
        return state

    def _new_frames(self, chunks: Sequence[Chunk], states: Sequence[FlowState | None]) -> list[np.ndarray]:
        """New mel frames [bins, frames] of every chunk; none where there is no state."""
        mels = [np.zeros((self._sizes.mel_bins, 0), np.float32)] * len(chunks)
        rows = [
            (i, state, chunk.flag)
            for i, (chunk, state) in enumerate(zip(chunks, states, strict=True))
            if state is not None and self._frames(state, chunk.flag) > state.frames_given
        ]
        rendered = self._render([(state, flag) for _, state, flag in rows]) if rows else []
        for (i, state, _), mel in zip(rows, rendered, strict=True):
            mels[i], state.frames_given = mel[:, state.frames_given :], mel.shape[1]
        return mels

    def _frames(self, state: FlowState, flag: ChunkFlag) -> int:
        """Frames that can be rendered now: the lookahead is held back until the last chunk."""
        held = 0 if flag & ChunkFlag.FINAL else self._sizes.lookahead
        return max(0, len(state.tokens) - held) * self._sizes.frames_per_token

    def _render(self, rows: Sequence[tuple[FlowState, ChunkFlag]]) -> list[np.ndarray]:
        """All frames of every row [bins, frames], as one batch padded to the longest."""
        frames = np.array([self._frames(state, flag) for state, flag in rows], np.int64)
        total = int(frames.max())
        width = total // self._sizes.frames_per_token + self._sizes.lookahead
        tokens, valid = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.float32)
        for i, (state, _) in enumerate(rows):
            tokens[i, : len(state.tokens)] = state.tokens
            valid[i, : len(state.tokens)] = 1.0
        speakers = np.stack([state.speaker for state, _ in rows])
        front = self._front({"tokens": tokens, "valid": valid, "embedding": speakers})
        x = np.repeat(self._noise.window(0, total)[None], len(rows), axis=0)
        for step in range(self._sizes.euler_steps):
            arrays = {"x": x, "frames": frames, "block": self._block, "step": np.array([step])}
            x = self._step(front | arrays)["next"]
        return [mel[:, :count] for mel, count in zip(x, frames, strict=True)]


def read_voice_vectors(path: Path) -> dict[str, np.ndarray]:
    """Names to raw speaker vectors, as the export wrote them."""
    with np.load(path) as table:
        return {str(name): vector for name, vector in zip(table["names"], table["embeddings"], strict=True)}
