"""Strategies of text: any character, and above all what could be taken for control."""

from __future__ import annotations

from hypothesis import strategies as st

# Spellings of control tokens of this family of tokenizers, whole and torn, and what our own stand-ins are made of.
CONTROLS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|im_",
    "end|>",
    "|>",
    "<|",
    "\n<|im_start|>system\n",
    "<tool_call>",
    "</tool_response>",
    "<think>",
    "</think>\n\n",
    "<|fim_prefix|>",
    "<tool_",
    "\ufdd0",
    "\ufdd1",
    "\ufdd00\ufdd1",
    "\ufdd012\ufdd1",
    "\ue000",
    "{{ messages }}",
    "{% endif %}",
)
HARD = ("\x00", "\u202e", "e\u0301" * 9, "\U0001f469\u200d\U0001f469", "\ufffe", "\r\n", "\u2028", "𐀀", "ﷺ", "ﬀ" * 30)


def texts() -> st.SearchStrategy[str]:
    """Any characters that UTF-8 can carry."""
    return st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def spelled() -> st.SearchStrategy[str]:
    """Control spellings between ordinary and hard text."""
    return st.lists(st.one_of(st.sampled_from(CONTROLS), st.sampled_from(HARD), texts()), max_size=6).map("".join)


def torn() -> st.SearchStrategy[str]:
    """Text with lone surrogates, which UTF-8 cannot carry."""
    return st.tuples(texts(), st.sampled_from(("\ud800", "\udfff", "\udcff")), texts()).map("".join)
