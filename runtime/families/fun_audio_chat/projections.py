"""What stands between the two engines: text and code embeddings and the projections of the speech head.

Source: the authors' audio_invert_tower and audio_tower (reference, sections 2.3 to 2.5).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from kernels.linear import product
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK
from runtime.graphs.device import to_device
from runtime.scheduling.stream import Prompt

# In the order of the attributes below.
TABLES = (
    f"{BACKBONE}embed_tokens.weight",
    CODEBOOK,
    "audio_tower.output_matching.weight",
    "audio_invert_tower.pre_matching.weight",
    "audio_invert_tower.pre_matching.bias",
    "audio_invert_tower.input_matching.weight",
)


class Projections:
    """Embeddings and matrices that are neither backbone nor speech stack.

    H = backbone hidden size, W = speech head width, G = group size. Codes are int64. All work is done on
    ``device``, that of the weights; ids and codes may come from the host.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, torch.Tensor]) -> None:
        self._group = config.speech_ids.group_size
        self._text, self._codebook, _, self._spread, self._spread_bias, self._narrow = (
            weights[name] for name in TABLES
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._text.device

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """[n] ids to [n, H]."""
        return F.embedding(ids.to(self._text.device), self._text)

    def embed_prompt(self, prompt: Prompt, begin: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A chunk of a prompt as the backbone sees it and as plain text embeddings, both [length, H].

        The speech head adds the plain embedding of the placeholder id, not the audio rows.
        """
        plain = self.embed_text(to_device(prompt.ids[begin : begin + length], self.device))
        first, last = np.searchsorted(prompt.audio_positions, (begin, begin + length))
        if first == last:
            return plain, plain
        mixed = plain.clone()
        rows = to_device(prompt.audio_embeds[first:last], self.device).to(plain.dtype)
        mixed[to_device(prompt.audio_positions[first:last] - begin, self.device)] = rows
        return mixed, plain

    def spread(self, hidden: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Backbone rows [n, H] and text rows [n, H] to the G sub-positions of each [n, G, H]."""
        return product(hidden + text, self._spread, self._spread_bias).view(len(hidden), self._group, -1)

    def speech_inputs(self, rows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Sub-position rows [n, H] and the codes before them [n] or one code to [n, W]."""
        return product(rows + F.embedding(codes.to(self._codebook.device), self._codebook), self._narrow)
