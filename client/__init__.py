"""Client of the server: `ChatClient` for programs, `python -m client` for people."""

from client.chunks import OUTPUT_RATE, Chunk
from client.client import ChatClient, ChatStream
from client.errors import Cancelled, ChatError, DeadlineExceeded, ServerError, ServerLost

__all__ = [
    "OUTPUT_RATE",
    "Cancelled",
    "ChatClient",
    "ChatError",
    "ChatStream",
    "Chunk",
    "DeadlineExceeded",
    "ServerError",
    "ServerLost",
]
