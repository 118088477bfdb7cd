"""``Sizes`` of a configuration."""

from __future__ import annotations

from runtime.token2wav.config import EULER_STEPS, POSITION_KERNEL, SMOOTHING_KERNEL, Token2WavConfig
from runtime.token2wav.layout import Sizes
from runtime.token2wav.vocoder.context import left_frames


def sizes_of(config: Token2WavConfig, voices: tuple[str, ...]) -> Sizes:
    """What the stages need to know of both nets."""
    flow, hift = config.flow, config.hift
    return Sizes(
        vocab_size=flow.vocab_size,
        mel_bins=flow.mel_bins,
        speaker_dim=flow.speaker_dim,
        lookbehind=SMOOTHING_KERNEL - 1,
        lookahead=flow.lookahead,
        frames_per_token=flow.frames_per_token,
        block_frames=flow.block_frames,
        euler_steps=EULER_STEPS,
        dim=flow.dim,
        depth=flow.depth,
        heads=flow.heads,
        head_dim=flow.head_dim,
        tail_frames=POSITION_KERNEL - 1,
        harmonics=hift.harmonics,
        frame_samples=hift.frame_samples,
        sample_rate=hift.sample_rate,
        vocoder_left=left_frames(hift),
        voices=voices,
    )
