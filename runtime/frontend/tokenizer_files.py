"""Opening the tokenizer of a checkpoint directory, whichever version of which library saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.checkpoint.files import AGAIN, exists, read_json, reason
from runtime.errors import BuildError

TOKENIZER_FILE = "tokenizer.json"
TEMPLATE_FILE = "chat_template.json"  # beside a processor, as transformers saved templates before 4.52


def load_tokenizer(directory: Path) -> Any:
    """A fast tokenizer with a chat template.

    Raises:
        BuildError: the directory holds none, or files that cannot be used.
    """
    try:
        tokenizer = _open(directory)
    except Exception as error:  # the libraries behind it raise whatever a wrong file led them to
        problem = f"cannot be read ({reason(error)})"
        raise BuildError("tokenizer", problem, f"check the files of {directory}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise BuildError("tokenizer", "is not a fast one", f"put {TOKENIZER_FILE} into {directory}")
    if not tokenizer.chat_template:
        tokenizer.chat_template = _processors_template(directory)
    return tokenizer


def _open(directory: Path) -> Any:
    """As its configuration says; where this version cannot follow it, by the file that holds all of a fast one."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # seconds, which only a loaded tokenizer is worth

    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever a file of another version led the library to; raised again unless one file has it all
        if not (directory / TOKENIZER_FILE).is_file():
            raise
    # Transformers 5 names classes and writes a list of extra tokens that version 4 does not know.
    return PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True, extra_special_tokens={})


def _processors_template(directory: Path) -> str:
    path = directory / TEMPLATE_FILE
    if not exists(path):
        raise BuildError("chat_template", f"not found in {directory}", "download the whole checkpoint")
    values = read_json(path, str(directory))
    template = values.get("chat_template") if isinstance(values, dict) else None
    if not isinstance(template, str):
        raise BuildError(TEMPLATE_FILE, "holds no text under chat_template", AGAIN)
    return template
