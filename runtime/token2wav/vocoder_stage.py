"""The vocoder as a stage: constant cost per chunk, whatever came before.

Every call sees as many frames to the left of the new ones as the net's kernels reach (29, and 8 more
for the pitch net) and 8 to the right; the phase of the harmonics is carried in turns. The result
equals one rendering of the whole stream to rounding. Source: reference section 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.errors import InvalidRequest
from runtime.token2wav.chunks import Arrays, Chunk, Graph, StreamTable, read_chunks
from runtime.token2wav.context import DECODER_LOOKAHEAD, PITCH_LEFT, PITCH_LOOKAHEAD, RIGHT
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise


@dataclass(slots=True)
class VocoderState:
    """Mel from absolute frame ``begin`` on, frames already sounded, phase at the next window's first frame."""

    mel: np.ndarray  # [bins, frames]
    turns: np.ndarray  # [harmonics] float64 in [0, 1)
    begin: int = 0
    done: int = 0

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
    def of(cls, state: VocoderState, left: int, final: bool) -> Window:
        """The next window of a stream; at the end zeros stand for what lies to the right."""
        start = max(0, state.done - left)
        total = state.total
        held = (0, 0, 0) if final else (PITCH_LOOKAHEAD, PITCH_LOOKAHEAD + DECODER_LOOKAHEAD, RIGHT)
        source_end, end, done = (total - frames for frames in held)
        return cls(start, max(0, start - PITCH_LEFT), source_end, end, max(done, state.done))


class VocoderStage:
    """Mel to sound for many streams.

    Args:
        sizes: of the exported folder.
        graph: mel_pitch, mel, turns, noise -> audio, f0.
        source_noise: by absolute sample.
        max_streams: most streams with state.
    """

    def __init__(self, sizes: Sizes, graph: Graph, source_noise: Noise, max_streams: int) -> None:
        self._sizes, self._graph, self._noise = sizes, graph, source_noise
        self.states: StreamTable[VocoderState] = StreamTable("vocoder", max_streams)

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.VOCODER``: mel of several streams, packed, to their new samples, packed.

        Raises:
            InvalidRequest, Overloaded: the call as a whole is refused and changes nothing.
        """
        bins = arrays["mel"].shape[0] if arrays["mel"].ndim == 2 else None
        if bins != self._sizes.mel_bins:
            raise InvalidRequest("mel", f"has shape {list(arrays['mel'].shape)}", f"send {self._sizes.mel_bins} rows")
        chunks = read_chunks(arrays, "mel", "mel_lengths")
        self.states.check_room(chunks)
        with self.states.serving(chunks):
            sounds = [self._chunk(chunk) for chunk in chunks]
        counts = [STATE_LOST if sound is None else len(sound) for sound in sounds]
        parts = [sound for sound in sounds if sound is not None]
        audio = np.concatenate([np.zeros(0, np.float32), *parts])
        return {"audio": audio, "audio_lengths": np.array(counts, np.int32)}

    def _chunk(self, chunk: Chunk) -> np.ndarray | None:
        """New samples of one stream; None when its state is unknown, here or in the stage before."""
        nothing = np.zeros(0, np.float32)
        if chunk.part is None:
            self.states.drop(chunk.stream_id)
            return None
        if chunk.flag & ChunkFlag.RELEASE:
            return nothing
        if chunk.flag & ChunkFlag.START:
            self.states.start(chunk.stream_id, VocoderState(chunk.part[:, :0], np.zeros(self._sizes.harmonics)))
        state = self.states.get(chunk.stream_id)
        if state is None:
            return None
        state.mel = np.concatenate([state.mel, chunk.part], axis=1)
        window = Window.of(state, self._sizes.vocoder_left, bool(chunk.flag & ChunkFlag.FINAL))
        return self._render(state, window) if window.done > state.done else nothing

    def _render(self, state: VocoderState, window: Window) -> np.ndarray:
        samples = self._sizes.frame_samples
        out = self._graph(
            {
                "mel_pitch": _cut(state, window.pitch_start, window.source_end + PITCH_LOOKAHEAD),
                "mel": _cut(state, window.start, window.end + DECODER_LOOKAHEAD),
                "turns": state.turns[None].astype(np.float32),
                "noise": self._noise.window(window.start * samples, window.source_end * samples)[None],
            }
        )
        first = window.start
        sound = out["audio"][0, (state.done - first) * samples : (window.done - first) * samples]
        following = max(0, window.done - self._sizes.vocoder_left)
        self._carry(state, out["f0"][0, : following - first])
        keep = max(0, following - PITCH_LEFT)
        state.mel, state.begin, state.done = state.mel[:, keep - state.begin :], keep, window.done
        return sound

    def _carry(self, state: VocoderState, f0: np.ndarray) -> None:
        """Advances the phase over frames that the next window no longer holds."""
        harmonics = np.arange(1, self._sizes.harmonics + 1)
        turns = f0.astype(np.float64).sum() * harmonics * self._sizes.frame_samples / self._sizes.sample_rate
        state.turns = (state.turns + turns) % 1.0


def _cut(state: VocoderState, begin: int, end: int) -> np.ndarray:
    """Frames ``begin .. end - 1`` as a batch of one; zeros beyond the last."""
    mel = state.mel[:, begin - state.begin : max(0, end - state.begin)]
    return np.pad(mel, ((0, 0), (0, end - begin - mel.shape[1])))[None]
