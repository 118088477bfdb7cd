"""Client of the server: `ChatClient` and `AsyncChatClient` for programs, `python -m client` for people.

Names are loaded when they are first used, so that `make doctor` also runs where a library is broken.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.access import Tls, token_headers
    from client.aio import AsyncChatClient, AsyncChatStream
    from client.answer import Answer
    from client.audio_file import read_audio, write_wav
    from client.chunks import OUTPUT_RATE, Chunk
    from client.client import ChatClient, ChatStream
    from client.connection import KeepAlive
    from client.errors import AccessDenied, Cancelled, ChatError, DeadlineExceeded, ServerError, ServerLost
    from client.retry import NO_RETRY, RetryPolicy

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
        raise AttributeError(f"module 'client' has no attribute {name!r}")
    return getattr(importlib.import_module(f"client.{_HOME_OF[name]}"), name)
