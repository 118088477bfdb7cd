"""How far the vocoder looks: the mel frames beside a chunk on which its sound depends.

Plain numbers, shared by the net that has these kernels and the stage that feeds it windows. Source:
reference sections 1.5 and 2.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the stages read no yaml
    from runtime.token2wav.config import HiftConfig

# Kernels that are fixed in the authors' code, not in the file.
PITCH_LOOKAHEAD, DECODER_LOOKAHEAD = 3, 4  # mel frames to the right that each input convolution sees
PITCH_KERNEL, PITCH_LAYERS = 3, 4  # causal convolutions of the pitch net
POST_KERNEL = 7  # last convolution

PITCH_LEFT = PITCH_LAYERS * (PITCH_KERNEL - 1)  # frames
OVERLAP = 1  # a window's last frame lacks what the next one adds to it
RIGHT = PITCH_LOOKAHEAD + DECODER_LOOKAHEAD + OVERLAP  # frames held back until more is known


def left_frames(config: HiftConfig) -> int:
    """Mel frames to the left of a chunk that its sound depends on: 29 at the released kernels.

    Walks from the sound back to the mel and counts columns of the inverse STFT. The source enters
    beside every upsampling stage, and its way in is the longest.
    """
    half = config.n_fft // 2 // config.hop
    widest = max(map(_block_reach, config.resblock_kernels, config.resblock_dilations))
    reach = half + POST_KERNEL - 1 + 1  # the last stage puts one column in front
    farthest, column = 0, 1  # width of a column of the current stage, in final columns
    for i in reversed(range(len(config.upsample_rates))):
        reach += column * widest
        branch = column * _block_reach(config.source_kernels[i], config.source_dilations[i])
        farthest = max(farthest, reach + branch + column - 1 + half)
        reach += column * (config.upsample_kernels[i] - 1 + config.upsample_rates[i] - 1)
        column *= config.upsample_rates[i]
    return ceil(max(farthest, reach) / prod(config.upsample_rates))


def _block_reach(kernel: int, dilations: Sequence[int]) -> int:
    """Columns to the left of a residual block: each dilated convolution is followed by a plain one."""
    return sum((kernel - 1) * (dilation + 1) for dilation in dilations)
