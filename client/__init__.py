"""Client of the server: `ChatClient` and `AsyncChatClient` for programs, `python -m client` for people."""

from client.aio import AsyncChatClient, AsyncChatStream
from client.answer import Answer
from client.audio_file import read_audio, write_wav
from client.chunks import OUTPUT_RATE, Chunk
from client.client import ChatClient, ChatStream
from client.connection import KeepAlive
from client.errors import Cancelled, ChatError, DeadlineExceeded, ServerError, ServerLost
from client.retry import NO_RETRY, RetryPolicy

__all__ = [
    "NO_RETRY",
    "OUTPUT_RATE",
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
    "read_audio",
    "write_wav",
]
