"""The vocoder as a stage: new mel frames of many streams in, their new samples out, at constant cost.

Every call sees as many frames to the left of the new ones as the net's kernels reach (29, and 8 more
for the pitch net) and 8 to the right; the phase of the harmonics is carried in turns. The result
equals one rendering of the whole stream to rounding. Windows of all streams of a call share one batch.
Source: reference section 2.6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.contracts import STATE_LOST, VOCODER_FAILED, ChunkFlag
from runtime.errors import InvalidRequest
from runtime.graphs.memory import Array, HostMemory, Memory
from runtime.token2wav.chunks import Arrays, Chunk, Graph, StreamTable, each_that_works, read_chunks
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Windows
from runtime.token2wav.vocoder.context import DECODER_LOOKAHEAD, PITCH_LEFT, PITCH_LOOKAHEAD, RIGHT

CALL_FRAMES = 200  # new ones of a stream in one call of the graph: as many as the flow makes in one of its calls


@dataclass(slots=True)
class VocoderState:
    """Mel from absolute frame ``begin`` on, frames already sounded, phase at the next window's first frame."""

    mel: np.ndarray  # [bins, frames]
    turns: np.ndarray  # [harmonics] float64 in [0, 1)
    begin: int = 0
    done: int = 0

    def save(self) -> Callable[[], bool]:
        """What puts all this back; arrays are replaced, never changed in place."""
        mel, turns, begin, done = self.mel, self.turns, self.begin, self.done

        def restore() -> bool:
            self.mel, self.turns, self.begin, self.done = mel, turns, begin, done
            return True

        return restore

    @property
    def total(self) -> int:
        """Frames so far, absolute."""
        return self.begin + self.mel.shape[1]


@dataclass(frozen=True, slots=True)
class Window:
    """Absolute frames of one call: the window begins at ``start``, its source ends at ``source_end``."""

    start: int
    pitch_start: int
    source_end: int
    end: int
    done: int  # frames sounded after the call

    @classmethod
    def of(cls, state: VocoderState, left: int, final: bool) -> Window | None:
        """The next window of a stream; at its end zeros stand for what lies to the right.

        None: nothing more can be sounded yet. A long chunk takes several windows.
        """
        start = max(0, state.done - left)
        total = min(state.total, state.done + CALL_FRAMES + RIGHT)
        last = final and total - state.done <= CALL_FRAMES and total == state.total
        held = (0, 0, 0) if last else (PITCH_LOOKAHEAD, PITCH_LOOKAHEAD + DECODER_LOOKAHEAD, RIGHT)
        source_end, end, done = (total - frames for frames in held)
        return cls(start, max(0, start - PITCH_LEFT), source_end, end, done) if done > state.done else None


class VocoderStage:
    """Mel to sound for many streams.

    Args:
        sizes: of the exported folder.
        graph: mel_pitch, mel, turns, noise, lead, frames, source_frames -> audio, f0.
        source_noise: by absolute sample, in the place that ``memory`` stands for.
        max_streams: most streams with state.
        memory: where the graph takes and leaves its arrays; states are on the host, they are small.
    """

    def __init__(
        self, sizes: Sizes, graph: Graph, source_noise: Windows, max_streams: int, memory: Memory | None = None
    ) -> None:
        self._sizes, self._graph, self._noise = sizes, graph, source_noise
        self._memory = memory or HostMemory()
        self.states: StreamTable[VocoderState] = StreamTable("vocoder", max_streams, VocoderState.save)

    @property
    def held_bytes(self) -> int:
        """Memory that streams hold."""
        return sum(state.mel.nbytes + state.turns.nbytes for state in self.states.values())

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.VOCODER``: mel of several streams, packed, to their new samples, packed.

        A stream that makes the call fail, or whose samples are not finite, ends with ``VOCODER_FAILED``; the
        others of the call go on.

        Raises:
            InvalidRequest, Overloaded: the call as a whole is refused and changes nothing.
        """
        bins = arrays["mel"].shape[0] if arrays["mel"].ndim == 2 else None
        if bins != self._sizes.mel_bins:
            raise InvalidRequest("mel", f"has shape {list(arrays['mel'].shape)}", f"send {self._sizes.mel_bins} rows")
        chunks = read_chunks(arrays, "mel", "mel_lengths")
        self.states.check_room(chunks)
        results = each_that_works(chunks, self._call)
        found = [self._fail(c) if result is None else result for c, result in zip(chunks, results, strict=True)]
        audio = np.concatenate([np.zeros(0, np.float32), *(x for x in found if isinstance(x, np.ndarray))])
        lengths = [len(x) if isinstance(x, np.ndarray) else x for x in found]
        return {"audio": audio, "audio_lengths": np.array(lengths, np.int32)}

    def _call(self, chunks: Sequence[Chunk]) -> list[np.ndarray | int]:
        """New samples of every chunk; a code where there are none and the stream is over."""
        with self.states.serving(chunks):
            states = [self._update(chunk) for chunk in chunks]
            sounds = self._new_sound(chunks, states)
        return [self._result(*row) for row in zip(chunks, states, sounds, strict=True)]

    def _result(self, chunk: Chunk, state: VocoderState | None, sound: np.ndarray) -> np.ndarray | int:
        if chunk.lost:
            return chunk.lost
        if state is None and not chunk.flag & ChunkFlag.RELEASE:
            return STATE_LOST
        if np.isfinite(sound).all() and (state is None or np.isfinite(state.turns).all()):
            return sound
        return self._fail(chunk)

    def _fail(self, chunk: Chunk) -> int:
        self.states.drop(chunk.stream_id)
        return VOCODER_FAILED

    def _update(self, chunk: Chunk) -> VocoderState | None:
        """The stream's state with the new mel; None when there is none: here, or in the stage before."""
        if chunk.part is None:
            self.states.drop(chunk.stream_id)
            return None
        if chunk.flag & ChunkFlag.RELEASE:
            return None
        if chunk.flag & ChunkFlag.START:
            self.states.start(chunk.stream_id, VocoderState(chunk.part[:, :0], np.zeros(self._sizes.harmonics)))
        state = self.states.get(chunk.stream_id)
        if state is not None:
            state.mel = np.concatenate([state.mel, chunk.part], axis=1)
        return state

    def _new_sound(self, chunks: Sequence[Chunk], states: Sequence[VocoderState | None]) -> list[np.ndarray]:
        """New samples of every chunk; none where there is no state."""
        sounds: list[list[np.ndarray]] = [[] for _ in chunks]
        while rows := self._windows(chunks, states):
            inputs = self._inputs([(state, window) for _, state, window in rows])
            noise = self._noise_of([window for _, _, window in rows])
            out = self._graph({name: self._memory.put(array) for name, array in inputs.items()} | {"noise": noise})
            audios, pitches = self._memory.take(out["audio"]), self._memory.take(out["f0"])
            for (i, state, window), audio, f0 in zip(rows, audios, pitches, strict=True):
                sounds[i].append(self._take(state, window, audio, f0))
        return [np.concatenate([np.zeros(0, np.float32), *parts]) for parts in sounds]

    def _windows(
        self, chunks: Sequence[Chunk], states: Sequence[VocoderState | None]
    ) -> list[tuple[int, VocoderState, Window]]:
        rows = []
        for i, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
            if state is not None:
                window = Window.of(state, self._sizes.vocoder_left, bool(chunk.flag & ChunkFlag.FINAL))
                if window is not None:
                    rows.append((i, state, window))
        return rows

    def _inputs(self, rows: Sequence[tuple[VocoderState, Window]]) -> Arrays:
        """The windows as one batch, padded on the right with zeros; without their noise."""
        windows = [window for _, window in rows]
        source = np.array([window.source_end - window.start for window in windows])
        frames = np.array([window.end - window.start for window in windows])
        lead = np.array([window.start - window.pitch_start for window in windows])
        pitch = int((lead + source).max()) + PITCH_LOOKAHEAD
        decoded = int(frames.max()) + DECODER_LOOKAHEAD
        return {
            "mel_pitch": np.stack(
                [_cut(state, w.pitch_start, w.source_end + PITCH_LOOKAHEAD, pitch) for state, w in rows]
            ),
            "mel": np.stack([_cut(state, w.start, w.end + DECODER_LOOKAHEAD, decoded) for state, w in rows]),
            "turns": np.stack([state.turns for state, _ in rows]).astype(np.float32),
            "lead": lead,
            "frames": frames,
            "source_frames": source,
        }

    def _noise_of(self, windows: Sequence[Window]) -> Array:
        """As much for every row as the longest source needs."""
        samples = self._sizes.frame_samples
        longest = max(window.source_end - window.start for window in windows)
        return self._noise.windows([window.start * samples for window in windows], longest * samples)

    def _take(self, state: VocoderState, window: Window, audio: np.ndarray, f0: np.ndarray) -> np.ndarray:
        """The new samples of a row; the state moves on to where the next window begins."""
        samples, first = self._sizes.frame_samples, window.start
        # A copy: the row is a view of the whole batch.
        sound = audio[(state.done - first) * samples : (window.done - first) * samples].copy()
        following = max(0, window.done - self._sizes.vocoder_left)
        self._carry(state, f0[: following - first])
        keep = max(0, following - PITCH_LEFT)
        state.mel, state.begin, state.done = state.mel[:, keep - state.begin :].copy(), keep, window.done
        return sound

    def _carry(self, state: VocoderState, f0: np.ndarray) -> None:
        """Advances the phase over frames that the next window no longer holds."""
        harmonics = np.arange(1, self._sizes.harmonics + 1)
        turns = f0.astype(np.float64).sum() * harmonics * self._sizes.frame_samples / self._sizes.sample_rate
        state.turns = (state.turns + turns) % 1.0


def _cut(state: VocoderState, begin: int, end: int, width: int) -> np.ndarray:
    """Frames ``begin .. end - 1``, and zeros up to ``width``."""
    mel = state.mel[:, begin - state.begin : max(0, end - state.begin)]
    return np.pad(mel, ((0, 0), (0, width - mel.shape[1])))
