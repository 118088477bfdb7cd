"""Which files hold the weights of a checkpoint: the order is that of transformers."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import exists, naming, one_line, shown
from runtime.errors import BuildError

Shapes = dict[str, tuple[int, ...]]  # of tensors, by name
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# What other tools save weights as: pickles, shards of a training run, one file of another naming, quantized ones.
OTHERS = (
    "pytorch_model*",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.safetensors",
    "*.gguf",
    "global_step*",
    "checkpoint-*",
)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint; an index beside a single file is left over from an earlier save.

    Raises:
        BuildError: there are none, or the index names none.
    """
    if exists(directory / SINGLE_FILE):
        return [directory / SINGLE_FILE]
    if exists(directory / INDEX_FILE):
        return [directory / name for name in _shards(Fields.read(directory / INDEX_FILE))]
    problem = f"holds neither {INDEX_FILE} nor {SINGLE_FILE}"
    with naming(str(directory), "make it readable"):
        other = next((path.name for kind in OTHERS for path in sorted(directory.glob(kind))), None)
    if other is not None:
        remedy = "give the checkpoint as save_pretrained(..., safe_serialization=True) writes it"
        raise BuildError(str(directory), f"{problem}, but {one_line(other)}", remedy)
    raise BuildError(str(directory), problem, "give the downloaded checkpoint directory")


def _shards(index: Fields) -> list[str]:
    """Names of the shards, each once, in order."""
    names = index.get("weight_map", dict)
    if not names:
        raise index.error("weight_map", "is empty", "download the checkpoint again")
    for tensor, name in names.items():
        if not isinstance(name, str) or not _is_inside(name):
            problem = f"is {shown(name)}"
            raise index.error(
                f"weight_map.{one_line(tensor)}", problem, "the name of a file in this directory is needed"
            )
    return sorted(set(names.values()))


def _is_inside(name: str) -> bool:
    """Whether a name stays in its directory and can be opened anywhere."""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and name.isascii() and name.isprintable() and not path.is_absolute() and ".." not in path.parts
    )
