"""Client of the server: `ChatClient`, `AsyncChatClient`, and the command `python -m fun_audio_chat_client`.

Names are loaded when they are first used, so that `make doctor` also runs where a library is broken.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import Tls, token_headers
    from .aio import AsyncChatClient, AsyncChatStream
    from .answer import Answer
    from .audio_file import read_audio, write_wav
    from .chunks import OUTPUT_RATE, Chunk
    from .client import ChatClient, ChatStream
    from .connection import KeepAlive
    from .errors import AccessDenied, Cancelled, ChatError, DeadlineExceeded, ServerError, ServerLost
    from .retry import NO_RETRY, RetryPolicy

__all__ = [
    "NO_RETRY",
    "OUTPUT_RATE",
    "AccessDenied",
    "Answer",
    "AsyncChatClient",
    "AsyncChatStream",
    "Cancelled",
    "ChatClient",
    "ChatError",
    "ChatStream",
    "Chunk",
    "DeadlineExceeded",
    "KeepAlive",
    "RetryPolicy",
    "ServerError",
    "ServerLost",
    "Tls",
    "read_audio",
    "token_headers",
    "write_wav",
]

_HOMES = {
    "access": ("Tls", "token_headers"),
    "aio": ("AsyncChatClient", "AsyncChatStream"),
    "answer": ("Answer",),
    "audio_file": ("read_audio", "write_wav"),
    "chunks": ("OUTPUT_RATE", "Chunk"),
    "client": ("ChatClient", "ChatStream"),
    "connection": ("KeepAlive",),
    "errors": ("AccessDenied", "Cancelled", "ChatError", "DeadlineExceeded", "ServerError", "ServerLost"),
    "retry": ("NO_RETRY", "RetryPolicy"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
