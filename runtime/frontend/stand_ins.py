"""Stand-ins for what people wrote, so that a chat template never holds a character of it.

The template renders a stand-in for each text, and the text takes its place when the prompt is encoded. No text can
spell a stand-in: while the template renders, no text is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import BuildError

# Two of the code points that Unicode will never make characters.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
_STAND_IN = re.compile(f"{OPEN}([0-9]+){CLOSE}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a rendered prompt. ``written``: by a person or a tool, so it is text whatever it spells."""

    text: str
    written: bool


class StandIns:
    """The texts of one conversation.

    Args:
        bare_space: white space around a text stays outside of its stand-in, so that a template can trim it.
    """

    def __init__(self, bare_space: bool = False) -> None:
        self._bare_space, self._texts = bare_space, list[str]()

    def hide(self, text: str) -> str:
        """What the template renders in the place of this text."""
        core = text.strip() if self._bare_space else text
        if not core:
            return text  # templates ask whether there is content at all
        before, _, after = text.partition(core)
        self._texts.append(core)
        return f"{before}{OPEN}{len(self._texts) - 1}{CLOSE}{after}"

    def pieces(self, rendered: str) -> Iterator[Piece]:
        """The rendered prompt with every text back in its place, in order.

        Raises:
            BuildError: the template cut a stand-in in two.
        """
        for i, piece in enumerate(_STAND_IN.split(rendered)):
            if i % 2:
                yield Piece(self._texts[int(piece)], written=True)
            elif OPEN in piece or CLOSE in piece:
                raise BuildError("chat_template", "cuts the text of a message", "use one that writes it whole")
            elif piece:
                yield Piece(piece, written=False)
