"""The golden set of token2wav: a CosyVoice3 directory and vectors.

``weights.npz`` holds the tensors of ``flow.pt`` and ``hift.pt``; of the token embedding only the rows
that the cases use (the others are zero). Arrays named ``*_every_8`` are thinned. The set's noise is
what the released recipe draws for a net of these sizes, so it is drawn, not stored.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "token2wav"
VOCABULARY = 6561


@cache
def vectors() -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / "vectors.npz"))


def materialise_cosyvoice(path: Path) -> None:
    """Writes the golden CosyVoice3 directory in the released layout."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("cosyvoice3.yaml", "spk2info.pt"):
        shutil.copy(FOLDER / name, path / name)
    stored = dict(np.load(FOLDER / "weights.npz"))
    rows = torch.from_numpy(stored.pop("embedding_rows"))
    files: dict[str, dict[str, torch.Tensor]] = {"flow": {}, "hift": {}}
    for name, array in stored.items():
        file, tensor = name.split("/", 1)
        files[file][tensor] = torch.from_numpy(array)
    table = torch.zeros(VOCABULARY, files["flow"]["input_embedding.weight"].shape[1])
    table[rows] = files["flow"]["input_embedding.weight"]
    files["flow"]["input_embedding.weight"] = table
    for file, tensors in files.items():
        torch.save(tensors, path / f"{file}.pt")
