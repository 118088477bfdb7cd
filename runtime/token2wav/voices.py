"""Speaker embeddings by name, from ``spk2info.pt``."""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.errors import BuildError

VOICES_FILE = "spk2info.pt"
PREFERRED = "中文女"
WHERE = (
    "pass VOICES=<file>: the authors ship it in their code repository as utils/new_spk2info.pt, "
    "each voice with an embedding beside speech_token and speech_feat"
)


def read_voices(cosyvoice: Path, voices: Path | None, width: int) -> dict[str, torch.Tensor]:
    """Voices of the given file, else of the CosyVoice3 directory; the default voice comes first.

    Returns:
        Names to embeddings [width] float32.

    Raises:
        BuildError: there is no file, or an embedding is missing or has another width.
    """
    path = voices or cosyvoice / VOICES_FILE
    if not path.exists():
        raise BuildError("VOICES", f"{path} does not exist", WHERE)
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises almost anything
        reason = str(error).splitlines()[0][:120]
        raise BuildError("VOICES", f"{path} cannot be read as plain tensors ({reason})", WHERE) from None
    if not isinstance(table, dict) or not table:
        raise BuildError("VOICES", f"{path} holds no voices", WHERE)
    names = sorted(table, key=lambda name: name != PREFERRED)  # stable: the others keep their order
    return {name: _embedding(path, name, table[name], width) for name in names}


def _embedding(path: Path, name: str, entry: object, width: int) -> torch.Tensor:
    embedding = entry.get("embedding") if isinstance(entry, dict) else None
    if not isinstance(embedding, torch.Tensor) or embedding.numel() != width:
        found = "none" if not isinstance(embedding, torch.Tensor) else str(list(embedding.shape))
        raise BuildError(f"VOICES: {name}", f"expected an embedding of {width} numbers, found {found} in {path}", WHERE)
    return embedding.detach().float().flatten()
