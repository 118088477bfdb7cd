"""Added tokens of a tokenizer: found in what the template writes, and out of reach for what people write.

Every added token counts as control, special or not: ``<tool_call>`` and ``<think>`` are added but not special.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, models

from runtime.errors import BuildError


class ControlTokens:
    """Finds added tokens in text as the tokenizer itself does.

    The same library with the same added tokens (their flags, their order, the normalizer) and an empty vocabulary does
    the work, so what it gives are added tokens only.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self.ids = {token.content: id_ for id_, token in added.items()}
        # White space that a person wrote could complete such a token beside what the template writes.
        self.takes_space = any(any(map(str.isspace, token.content)) for token in added.values())
        self._finder = Tokenizer(models.BPE())
        if tokenizer.normalizer is not None:
            self._finder.normalizer = tokenizer.normalizer
        self._finder.add_tokens([added[id_] for id_ in sorted(added)])

    def split(self, text: str) -> Iterator[int | str]:
        """Ids of added tokens, and the text between them."""
        found = self._finder.encode(text, add_special_tokens=False)
        at = 0
        for token, (begin, end) in zip(found.tokens, found.offsets, strict=True):
            if begin > at:
                yield text[at:begin]
            yield self.ids[token]
            at = end
        if at < len(text):
            yield text[at:]


def without_control(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that gives no id of an added token, whatever it encodes.

    An added token may share its id with a token of the vocabulary; then merges must not make that one either. A token
    of one byte stays: nothing else could encode the byte.

    Raises:
        BuildError: it is no byte-level BPE.
    """
    spec = json.loads(tokenizer.to_str())
    model = spec["model"]
    if model["type"] != "BPE":
        raise BuildError("tokenizer", f"is of type {model['type']}", "use the byte-level BPE of the checkpoint")
    ids = {token["id"] for token in spec["added_tokens"]}
    # A stored bound on the length would cut long prompts in silence.
    spec |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    _forget(model, {token for token, id_ in model["vocab"].items() if id_ in ids and len(token) > 1})
    return Tokenizer.from_str(json.dumps(spec))


def _forget(model: dict[str, Any], names: set[str]) -> None:
    """Takes tokens out of a BPE's vocabulary, and the merges that make or use them."""
    if not names:
        return
    model["vocab"] = {token: id_ for token, id_ in model["vocab"].items() if token not in names}
    model["merges"] = [pair for pair in model["merges"] if not names & {*pair, "".join(pair)}]
    if model["unk_token"] in names:
        model["unk_token"] = None
