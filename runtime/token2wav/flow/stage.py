"""The flow as a stage: new tokens of many streams in, their new mel frames out, at constant cost.

Every call renders a stream from its last complete block on and keeps the new frames: all but those of
the last tokens, which are only looked at until the stream ends. What lies before comes from caches, so
the cost of a chunk does not depend on what came before it, and the result equals rendering everything
again under the same mask. All streams of a call share one batch. Knows the ``flow`` contract and numpy,
not what runs the graphs or where their arrays live. Source: reference section 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.contracts import FLOW_FAILED, STATE_LOST, ChunkFlag
from runtime.errors import InvalidRequest, NotFound
from runtime.graphs.memory import HostMemory, Memory
from runtime.token2wav.chunks import Arrays, Chunk, Graph, StreamTable, each_that_works, read_chunks
from runtime.token2wav.flow.cache import FlowCache
from runtime.token2wav.flow.state import FlowState, Piece, Rendering
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise

UNBOUNDED = 1 << 30  # frames; a block that no stream fills: full attention
CALL_BLOCKS = 4  # of one stream in one call of the graphs; longer chunks take several


class FlowStage:
    """Tokens to mel for many streams.

    Args:
        sizes: of the exported folder.
        front: tokens, valid, embedding -> mu, speaker.
        step: one Euler step, see ``flow.EulerStep``.
        voices: names to raw speaker vectors.
        mel_noise: start of the ODE by absolute frame.
        max_streams: most streams with state.
        window: blocks that a frame sees before its own.
        full_attention: every frame sees all frames of its call, as in the authors' demo server, and
            every call renders all of them again.
        cache_type: of keys and values, as the graph has it.
        memory: where the graphs take and leave their arrays.
        cache: made elsewhere; by default in host memory.
    """

    def __init__(
        self,
        sizes: Sizes,
        front: Graph,
        step: Graph,
        voices: dict[str, np.ndarray],
        mel_noise: Noise,
        max_streams: int,
        window: int,
        full_attention: bool = False,
        cache_type: str = "float32",
        memory: Memory | None = None,
        cache: FlowCache | None = None,
    ) -> None:
        self._sizes, self._front, self._step = sizes, front, step
        self._memory = memory or HostMemory()
        self._voices, self._noise = voices, mel_noise
        self._block = UNBOUNDED if full_attention else sizes.block_frames
        window = 0 if full_attention else window
        self.cache = cache or FlowCache(sizes, max_streams, window, cache_type, self._memory)
        self._steps = [self._memory.put(np.array([step])) for step in range(sizes.euler_steps)]
        self.states: StreamTable[FlowState] = StreamTable(
            "flow", max_streams, FlowState.save, release=lambda state: self.cache.close(state.cache)
        )

    @property
    def held_bytes(self) -> int:
        """Memory that streams hold."""
        return self.cache.held_bytes

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.FLOW``: chunks of several streams, packed, to their new mel frames, packed.

        A stream that makes the call fail, or whose frames are not finite, ends with ``FLOW_FAILED``; the
        others of the call go on.

        Raises:
            InvalidRequest, NotFound, Overloaded: the call as a whole is refused and changes nothing.
        """
        chunks = read_chunks(arrays, "tokens", "token_lengths")
        voices = [bytes(voice).decode("utf-8", "replace") for voice in arrays["voices"]]
        self._check(chunks, voices, arrays["tokens"])
        results = each_that_works(list(zip(chunks, voices, strict=True)), self._call)
        found = [self._fail(c) if result is None else result for c, result in zip(chunks, results, strict=True)]
        mels = [result for result in found if isinstance(result, np.ndarray)]
        lengths = [result.shape[1] if isinstance(result, np.ndarray) else result for result in found]
        empty = np.zeros((self._sizes.mel_bins, 0), np.float32)
        return {"mel": np.concatenate([empty, *mels], axis=1), "mel_lengths": np.array(lengths, np.int32)}

    def _call(self, rows: Sequence[tuple[Chunk, str]]) -> list[np.ndarray | int]:
        """New mel frames [bins, frames] of every chunk; a code where there are none and the stream is over."""
        chunks = [chunk for chunk, _ in rows]
        with self.states.serving(chunks):
            states = [self._update(chunk, voice) for chunk, voice in rows]
            jobs = self._new_frames(chunks, states)
        return [self._result(chunk, job) for chunk, job in zip(chunks, jobs, strict=True)]

    def _result(self, chunk: Chunk, job: Rendering | None) -> np.ndarray | int:
        if job is None and not chunk.flag & ChunkFlag.RELEASE:
            return STATE_LOST
        if job is not None and job.failed:
            return self._fail(chunk)
        return np.concatenate([np.zeros((self._sizes.mel_bins, 0), np.float32), *(job.pieces if job else ())], axis=1)

    def _fail(self, chunk: Chunk) -> int:
        self.states.drop(chunk.stream_id)
        return FLOW_FAILED

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
            self.states.start(chunk.stream_id, FlowState(self._voices[voice], self.cache.open()))
        state = self.states.get(chunk.stream_id)
        if state is not None and chunk.part is not None:
            state.tokens += chunk.part.tolist()
        return state

    def _new_frames(self, chunks: Sequence[Chunk], states: Sequence[FlowState | None]) -> list[Rendering | None]:
        """Renders the new frames of every chunk; None where there is no state."""
        jobs = [
            None if state is None else self._rendering(state, bool(chunk.flag & ChunkFlag.FINAL))
            for chunk, state in zip(chunks, states, strict=True)
        ]
        while pieces := [self._piece(job) for job in jobs if job is not None and job.done < job.end]:
            self._render(pieces)
        return jobs

    def _rendering(self, state: FlowState, final: bool) -> Rendering:
        """Frames that can be rendered now: the lookahead is held back until the last chunk."""
        held = 0 if final else self._sizes.lookahead
        tokens = max(0, state.dropped + len(state.tokens) - held)
        return Rendering(state, tokens * self._sizes.frames_per_token, final, state.given)

    def _piece(self, job: Rendering) -> Piece:
        first = job.state.cache.blocks * self._sizes.block_frames
        end = min(job.end, first + CALL_BLOCKS * self._block)
        last = end == job.end and job.final
        blocks = 0 if last else (end - first) // self._block
        return Piece(job, first, end - first, blocks)

    def _render(self, pieces: Sequence[Piece]) -> None:
        """All frames of the pieces as one batch, padded to the longest."""
        caches = [piece.rendering.state.cache for piece in pieces]
        counts = [piece.blocks for piece in pieces]
        total = max(piece.frames for piece in pieces)
        front = self._front(self._put(self._tokens(pieces, total // self._sizes.frames_per_token)))
        fixed = front | self._put(self._places(pieces) | self.cache.tables(caches))
        noise = np.stack([self._noise.window(piece.first, piece.first + total) for piece in pieces])
        x = self._memory.put(noise)
        for step, number in enumerate(self._steps):
            moving = {"x": x, "step": number, "tails": self.cache.stack_tails(caches, step)}
            found = self._step(fixed | moving | self.cache.layers(step))
            x = found["next"]
            self.cache.store(caches, counts, step, found)
            del found  # before the next step makes as much again
        self.cache.advance(caches, counts)
        for piece, mel in zip(pieces, self._memory.take(x), strict=True):
            self._give(piece, mel)

    def _put(self, arrays: Arrays) -> Arrays:
        return {name: self._memory.put(array) for name, array in arrays.items()}

    def _places(self, pieces: Sequence[Piece]) -> Arrays:
        """Where the rows lie in their streams, and the mask's sizes."""
        return {
            "first": np.array([piece.first for piece in pieces]),
            "frames": np.array([piece.frames for piece in pieces]),
            "kept": np.array([piece.blocks for piece in pieces]) * self._sizes.block_frames,
            "block": np.array([self._block]),
            "window": np.array([self.cache.window]),
        }

    def _tokens(self, pieces: Sequence[Piece], width: int) -> Arrays:
        """The pieces' tokens with their neighbours, and which of them exist."""
        sizes = self._sizes
        shape = (len(pieces), sizes.lookbehind + width + sizes.lookahead)
        tokens, valid = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for row, piece in enumerate(pieces):
            state = piece.rendering.state
            begin = piece.first // sizes.frames_per_token - sizes.lookbehind - state.dropped
            known = state.tokens[max(0, begin) : begin + shape[1]]
            place = slice(max(0, -begin), max(0, -begin) + len(known))
            tokens[row, place], valid[row, place] = known, 1.0
        speakers = np.stack([piece.rendering.state.speaker for piece in pieces])
        return {"tokens": tokens, "valid": valid, "embedding": speakers}

    def _give(self, piece: Piece, mel: np.ndarray) -> None:
        """Adds the new frames to the rendering and forgets tokens that no later call needs."""
        job, state, sizes = piece.rendering, piece.rendering.state, self._sizes
        if not np.isfinite(mel[:, : piece.frames]).all():
            # Now, not when the stream is dropped: a masked NaN is still a NaN to the stream that reads its blocks next.
            self.cache.scrub(state.cache)
            job.failed, job.done = True, job.end
            return
        job.pieces.append(mel[:, job.done - piece.first : piece.frames])
        state.given = job.done = piece.first + piece.frames
        block = state.cache.blocks * sizes.block_frames // sizes.frames_per_token
        spare = max(0, block - sizes.lookbehind - state.dropped)
        del state.tokens[:spare]
        state.dropped += spare


def read_voice_vectors(path: Path) -> dict[str, np.ndarray]:
    """Names to raw speaker vectors, as the export wrote them."""
    with np.load(path) as table:
        return {str(name): vector for name, vector in zip(table["names"], table["embeddings"], strict=True)}
