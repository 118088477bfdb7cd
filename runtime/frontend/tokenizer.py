"""Text to ids and ids to text, with control tokens kept apart from what users write.

A rendered chat template holds control tokens (``<|im_start|>``, ``<|AUDIO|>``, ...) and user text.
User text may spell a control token; it must arrive as text. So each such spelling is masked before
the template is rendered, the rendered string is cut at the control tokens that remain, and every
piece between them is unmasked and encoded with special tokens switched off. Between control
tokens the ids are those of the plain tokenizer, byte for byte.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from runtime.errors import BuildError

_MASK_OPEN, _MASK_CLOSE = "\ue000", "\ue001"  # private-use characters; doubled where a user writes them


class ChatTokenizer:
    """Tokenizer and chat template of a checkpoint directory.

    Raises:
        BuildError: the directory holds no usable tokenizer or no chat template.
    """

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer  # seconds, which only a loaded tokenizer is worth

        try:
            self._hf: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BuildError("tokenizer", f"cannot be read: {reason}", f"check the files of {directory}") from None
        if not self._hf.chat_template:
            raise BuildError("chat_template", f"not found in {directory}", "download the whole checkpoint")
        # A private copy: special tokens are switched off in it for good.
        self._plain = Tokenizer.from_str(self._hf.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        added = self._hf.added_tokens_decoder
        self._special_ids = {token.content: id_ for id_, token in added.items() if token.special}
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._special_names = longest_first
        self._bytes = _token_bytes(self._hf.get_vocab(), set(self._special_ids.values()))

    def mask(self, text: str) -> str:
        """User text with every spelling of a control token hidden from the template."""
        text = text.replace(_MASK_OPEN, _MASK_OPEN * 2)
        return self._special.sub(lambda match: f"{_MASK_OPEN}{self._special_names.index(match[0])}{_MASK_CLOSE}", text)

    def _unmask(self, text: str) -> str:
        def restore(match: re.Match[str]) -> str:
            return _MASK_OPEN if match[1] is None else self._special_names[int(match[1])]

        return re.sub(f"{_MASK_OPEN}(?:{_MASK_OPEN}|(\\d+){_MASK_CLOSE})", restore, text)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The chat template over masked messages, with the generation prompt."""
        rendered = self._hf.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return str(rendered)

    def encode(self, rendered: str) -> list[int]:
        """Ids of a rendered template: control tokens as such, masked ones as text."""
        ids: list[int] = []
        for i, piece in enumerate(self._special.split(rendered)):
            if i % 2:
                ids.append(self._special_ids[piece])
            elif piece:
                ids += self._plain.encode(self._unmask(piece), add_special_tokens=False).ids
        return ids

    def stream(self) -> TextStream:
        """A decoder for one answer."""
        return TextStream(self._bytes)


class TextStream:
    """Ids of one answer to text as it can be shown: whole characters only, no special tokens."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """New text after one more id; bytes of an unfinished character are held back."""
        data = self._bytes[token_id] if token_id < len(self._bytes) else b""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What was held back, with the replacement character where it stays incomplete."""
        return self._decoder.decode(b"", final=True)


def _token_bytes(vocabulary: dict[str, int], special: set[int]) -> list[bytes]:
    """Bytes of every id; special ids give none. Byte-level BPE spells each byte as one character."""
    alphabet = _byte_alphabet()
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, id_ in vocabulary.items():
        if id_ not in special:
            known = all(char in alphabet for char in token)
            table[id_] = bytes(alphabet[c] for c in token) if known else token.encode()
    return table


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte: printable ones for themselves, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet()), "the byte alphabet of the tokenizers library changed"
    return table
