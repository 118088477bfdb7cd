"""The vocoder as a stage: constant cost per chunk, whatever came before.

Every call sees 29 frames to the left of the new ones (8 more for the pitch net) and 8 to the right;
the phase of the harmonics is carried in turns. The result equals one rendering of the whole stream
to rounding. Source: reference section 2.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.errors import Overloaded
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise

Arrays = dict[str, np.ndarray]
LEFT, PITCH_LEFT = 29, 8  # receptive field of the source branch and of the pitch net, frames
PITCH_RIGHT, DECODER_RIGHT = 3, 4  # lookahead of the two input convolutions
RIGHT = PITCH_RIGHT + DECODER_RIGHT + 1  # one frame more, because a window's last frame lacks its overlap


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
    def of(cls, state: VocoderState, final: bool) -> Window:
        """The next window of a stream; at the end zeros stand for what lies to the right."""
        start = max(0, state.done - LEFT)
        total = state.total
        held = (0, 0, 0) if final else (PITCH_RIGHT, PITCH_RIGHT + DECODER_RIGHT, RIGHT)
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

    def __init__(self, sizes: Sizes, graph: Callable[[Arrays], Arrays], source_noise: Noise, max_streams: int) -> None:
        self._sizes, self._graph, self._noise, self._max_streams = sizes, graph, source_noise, max_streams
        self.states: dict[int, VocoderState] = {}

    def run(self, arrays: Arrays) -> Arrays:
        """``runtime.contracts.VOCODER``: mel of several streams, packed, to their new samples, packed."""
        lengths = arrays["mel_lengths"]
        mels = np.split(arrays["mel"], np.cumsum(np.maximum(lengths, 0))[:-1], axis=1)
        sounds = [
            self._chunk(id_, ChunkFlag(int(flag)), mel, lost=length == STATE_LOST)
            for id_, flag, mel, length in zip(
                arrays["stream_ids"].tolist(), arrays["chunk_flags"], mels, lengths, strict=True
            )
        ]
        counts = [STATE_LOST if sound is None else len(sound) for sound in sounds]
        parts = [sound for sound in sounds if sound is not None]
        audio = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return {"audio": audio, "audio_lengths": np.array(counts, np.int32)}

    def _chunk(self, id_: int, flag: ChunkFlag, mel: np.ndarray, lost: bool) -> np.ndarray | None:
        nothing = np.zeros(0, np.float32)
        if lost or flag & ChunkFlag.RELEASE:
            self.states.pop(id_, None)
            return None if lost else nothing
        if flag & ChunkFlag.START:
            if len(self.states) >= self._max_streams:
                raise Overloaded("vocoder", f"already holds {self._max_streams} streams", "retry in a few seconds")
            self.states[id_] = VocoderState(mel[:, :0], np.zeros(self._sizes.harmonics))
        state = self.states.get(id_)
        if state is None:
            return None
        state.mel = np.concatenate([state.mel, mel], axis=1)
        final = bool(flag & ChunkFlag.FINAL)
        window = Window.of(state, final)
        sound = self._render(state, window) if window.done > state.done else nothing
        if final:
            del self.states[id_]
        return sound

    def _render(self, state: VocoderState, window: Window) -> np.ndarray:
        samples = self._sizes.frame_samples
        out = self._graph(
            {
                "mel_pitch": _cut(state, window.pitch_start, window.source_end + PITCH_RIGHT),
                "mel": _cut(state, window.start, window.end + DECODER_RIGHT),
                "turns": state.turns[None].astype(np.float32),
                "noise": self._noise.window(window.start * samples, window.source_end * samples)[None],
            }
        )
        first = window.start
        sound = out["audio"][0, (state.done - first) * samples : (window.done - first) * samples]
        following = max(0, window.done - LEFT)
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
