"""Speaker embeddings by name, from ``spk2info.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from runtime.checkpoint.files import exists, one_line, shown
from runtime.checkpoint.quantised import PLAIN
from runtime.errors import BuildError
from runtime.token2wav.weights import KEYS_SHOWN, read_plain

VOICES_FILE = "spk2info.pt"
PREFERRED = "中文女"
NAME_BYTES = 256  # of a string parameter of a request (``serving.limits``)
# In the authors' file, and in one that CosyVoice's add_zero_shot_spk wrote: the flow's and the language model's are
# the same vector there, and the flow's is the one that is used here.
EMBEDDINGS = ("embedding", "flow_embedding")
WHERE = (
    "pass VOICES=<file>: the authors ship it in their code repository as utils/new_spk2info.pt, "
    "each voice with an embedding beside speech_token and speech_feat"
)


def read_voices(cosyvoice: Path, voices: Path | None, width: int) -> dict[str, torch.Tensor]:
    """Voices of the given file, else of the CosyVoice3 directory; the default voice comes first.

    Returns:
        Names to embeddings [width] float32.

    Raises:
        BuildError: there is no file, no request could carry a name, or an embedding is missing, of another width or
            without meaning.
    """
    path = voices or cosyvoice / VOICES_FILE
    if not exists(path, "VOICES"):
        raise BuildError("VOICES", f"{path} does not exist", WHERE)
    table = read_plain(path, f"VOICES: {path}", WHERE)
    if not isinstance(table, Mapping) or not table:
        raise BuildError("VOICES", f"{path} holds no voices", WHERE)
    found: dict[str, torch.Tensor] = {}
    for key, entry in table.items():
        name = _name(key)
        if name in found:
            raise BuildError("VOICES", f"{path} names {shown(name)} twice", "give every voice a name of its own")
        found[name] = _embedding(path, name, entry, width)
    names = sorted(found, key=lambda name: name != PREFERRED)  # stable: the others keep their order
    return {name: found[name] for name in names}


def _name(key: object) -> str:
    """A name as a request can ask for it; numbers count as their digits."""
    name = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    fits = isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name.encode()) <= NAME_BYTES
    if not fits:
        remedy = f"name it with 1 to {NAME_BYTES} bytes of printable text"
        raise BuildError("VOICES", f"no request can ask for a voice named {shown(key)}", remedy)
    return str(name)


def _embedding(path: Path, name: str, entry: object, width: int) -> torch.Tensor:
    field = f"VOICES: {name}"
    given = _given(entry)
    if given is None:
        keys = one_line(", ".join(map(str, list(entry)[:KEYS_SHOWN]))) if isinstance(entry, Mapping) else shown(entry)
        raise BuildError(field, f"expected an embedding of {width} numbers, found {keys or 'nothing'} in {path}", WHERE)
    vector = given.squeeze()
    if given.dtype not in PLAIN or vector.shape != (width,):
        found = f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
        raise BuildError(field, f"expected an embedding of {width} numbers, found {found} in {path}", WHERE)
    vector = vector.detach().float()
    if not vector.isfinite().all() or not vector.any():
        raise BuildError(field, f"its embedding in {path} is zero or not finite", "make this voice again")
    return vector


def _given(entry: object) -> torch.Tensor | None:
    """The speaker vector of a voice, where it has one."""
    if not isinstance(entry, Mapping):
        return None
    for key in EMBEDDINGS:
        value = entry.get(key)
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
            return value
        if _is_vector(value):
            return torch.tensor(value, dtype=torch.float32)
    return None


def _is_vector(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value)
