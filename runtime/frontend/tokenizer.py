"""Text to ids and ids to text, with control tokens kept apart from what people write.

A chat template writes control tokens (``<|im_start|>``, ``<|AUDIO|>``, ``<think>``, ...). People and tools may spell
them; what they spell must arrive as text. So the template renders stand-ins instead of texts (``stand_ins``), control
tokens are looked for in the template's own words only (``control``), and everything between two of them, the texts
in their places, is encoded by a tokenizer that has no control tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import pre_tokenizers

from runtime.errors import BuildError, InvalidRequest
from runtime.frontend.control import ControlTokens, without_control
from runtime.frontend.stand_ins import StandIns
from runtime.frontend.tokenizer_files import load_tokenizer

PROBE = ({"role": "system", "content": "You listen."}, {"role": "user", "content": "Hello."})


class ChatTokenizer:
    """Tokenizer and chat template of a checkpoint directory.

    Raises:
        BuildError: the directory holds no tokenizer or no chat template that can be used.
    """

    def __init__(self, directory: Path) -> None:
        self._hf = load_tokenizer(directory)
        self._plain = without_control(self._hf.backend_tokenizer)
        self._control = ControlTokens(self._hf.backend_tokenizer)
        self._bytes = _token_bytes(self._hf.get_vocab(), self._hf.added_tokens_decoder)
        self._probe(directory)

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens, added ones too, and their ids."""
        return dict(self._hf.get_vocab())

    def stand_ins(self) -> StandIns:
        """An empty table for the texts of one conversation."""
        return StandIns(bare_space=not self._control.takes_space)

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The chat template over messages whose texts are hidden, with the generation prompt.

        Raises:
            InvalidRequest: the template refuses the conversation.
        """
        try:
            return self._apply(messages)
        except TemplateError as error:
            problem = f"are refused by the checkpoint's chat template ({_one_line(error)})"
            raise InvalidRequest("messages", problem, "send the turns that this model was trained on") from None

    def _apply(self, messages: Sequence[dict[str, str]]) -> str:
        return str(self._hf.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def encode(self, rendered: str, texts: StandIns | None = None) -> list[int]:
        """Ids of a rendered template: control tokens as such, the texts behind stand-ins as text."""
        ids: list[int] = []
        words = ""
        for piece in (texts or StandIns()).pieces(rendered):
            for part in (piece.text,) if piece.written else self._control.split(piece.text):
                if isinstance(part, str):
                    words += part
                else:
                    ids += [*self._words(words), part]
                    words = ""
        return ids + self._words(words)

    def _words(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []

    def _probe(self, directory: Path) -> None:
        """Renders a short conversation, so that a template that cannot be used is found before the first request."""
        texts = self.stand_ins()
        messages = [{**turn, "content": texts.hide(turn["content"])} for turn in PROBE]
        remedy = f"check the chat template of {directory}"
        try:
            pieces = list(texts.pieces(self._apply(messages)))
        except BuildError:
            raise
        except Exception as error:
            raise BuildError("chat_template", f"cannot be rendered: {_one_line(error)}", remedy) from None
        if {piece.text for piece in pieces if piece.written} != {turn["content"] for turn in PROBE}:
            raise BuildError("chat_template", "does not write every message", remedy)

    def stream(self) -> TextStream:
        """A decoder for one answer."""
        return TextStream(self._bytes)


def _one_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else 'no reason given'}"


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


def _token_bytes(vocabulary: dict[str, int], added: dict[int, Any]) -> list[bytes]:
    """Bytes of every id; special ids give none. Byte-level BPE spells each byte as one character.

    Raises:
        BuildError: the vocabulary lacks bytes, which could not be encoded.
    """
    alphabet = _byte_alphabet()
    missing = len(alphabet.keys() - vocabulary.keys())
    if missing:
        raise BuildError("tokenizer", f"has no token for {missing} of 256 bytes", "use that of the checkpoint")
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, id_ in vocabulary.items():
        if id_ not in added:
            known = all(char in alphabet for char in token)
            table[id_] = bytes(alphabet[c] for c in token) if known else token.encode()
        elif not added[id_].special:
            table[id_] = token.encode()
    return table


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte: printable ones for themselves, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet()), "the byte alphabet of the tokenizers library changed"
    return table
