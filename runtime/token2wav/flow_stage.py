"""The flow as a stage: state of every stream, new tokens in, new mel frames out.

A stream's state is its tokens; every call renders them again under the block mask and keeps the new
frames. All streams of a call share one batch. Knows the ``flow`` contract and numpy, not what runs
the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.errors import InvalidRequest, Overloaded
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise

Arrays = dict[str, np.ndarray]
Graph = Callable[[Arrays], Arrays]


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
        step: x, mu, speaker, frames, step -> next.
        voices: names to raw speaker vectors.
        mel_noise: start of the ODE by absolute frame.
        max_streams: most streams with state.
    """

    def __init__(
        self, sizes: Sizes, front: Graph, step: Graph, voices: dict[str, np.ndarray], mel_noise: Noise, max_streams: int
    ) -> None:
        self._sizes, self._front, self._step = sizes, front, step
        self._voices, self._noise, self._max_streams = voices, mel_noise, max_streams
        self.states: dict[int, FlowState] = {}

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.FLOW``: chunks of several streams, packed, to their new mel frames, packed."""
        flags = [ChunkFlag(int(flag)) for flag in arrays["chunk_flags"]]
        ids = arrays["stream_ids"].tolist()
        self._check(arrays, ids)
        tokens = np.split(arrays["tokens"], np.cumsum(arrays["token_lengths"])[:-1])
        states = [
            self._update(id_, flag, voice, new.tolist())
            for id_, flag, voice, new in zip(ids, flags, arrays["voices"], tokens, strict=True)
        ]
        mels = [np.zeros((self._sizes.mel_bins, 0), np.float32)] * len(ids)
        ready = [i for i, state in enumerate(states) if state is not None and self._frames(state, flags[i])]
        rendered = self._render([(states[i], flags[i]) for i in ready]) if ready else []  # type: ignore[misc]
        for i, mel in zip(ready, rendered, strict=True):
            state = states[i]
            assert state is not None
            mels[i], state.frames_given = mel[:, state.frames_given :], mel.shape[1]
        lengths = [
            STATE_LOST if state is None and not flag & ChunkFlag.RELEASE else mel.shape[1]
            for state, flag, mel in zip(states, flags, mels, strict=True)
        ]
        for id_, flag in zip(ids, flags, strict=True):
            if flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE):
                self.states.pop(id_, None)
        return {"mel": np.concatenate(mels, axis=1), "mel_lengths": np.array(lengths, np.int32)}

    def _check(self, arrays: Arrays, ids: list[int]) -> None:
        if len(set(ids)) != len(ids):
            raise InvalidRequest("stream_ids", "names a stream twice", "send one chunk per stream and call")
        tokens = arrays["tokens"]
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self._sizes.vocab_size):
            raise InvalidRequest("tokens", "holds control codes", f"send codes below {self._sizes.vocab_size}")
        if int(arrays["token_lengths"].sum()) != tokens.size:
            raise InvalidRequest("token_lengths", "does not add up to the tokens", "make them equal")

    def _update(self, id_: int, flag: ChunkFlag, voice: bytes, tokens: list[int]) -> FlowState | None:
        """The stream's state with the new tokens; None when there is none (lost, or just released)."""
        if flag & ChunkFlag.RELEASE:
            return None
        if flag & ChunkFlag.START:
            if len(self.states) >= self._max_streams:
                raise Overloaded("token2wav", f"already holds {self._max_streams} streams", "retry in a few seconds")
            self.states[id_] = FlowState(self._voices[voice.decode()])
        state = self.states.get(id_)
        if state is not None:
            state.tokens += tokens
        return state

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
            arrays = {"x": x, "mu": front["mu"], "speaker": front["speaker"], "frames": frames}
            x = self._step(arrays | {"step": np.array([step])})["next"]
        return [mel[:, :count] for mel, count in zip(x, frames, strict=True)]


def read_voice_vectors(path: Path) -> dict[str, np.ndarray]:
    """Names to raw speaker vectors, as the export wrote them."""
    with np.load(path) as table:
        return {str(name): vector for name, vector in zip(table["names"], table["embeddings"], strict=True)}
