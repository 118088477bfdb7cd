"""A TCP relay on loopback whose connections can be broken: what a cut cable looks like to a server."""

from __future__ import annotations

import asyncio
import socket
import struct

BLOCK = 1 << 16
RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset


class Relay:
    """Forwards connections. Made by ``to``; lives in one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._dropped = False
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def to(cls, url: str) -> Relay:
        """A relay to host:port, on a free port."""
        host, _, port = url.rpartition(":")
        relay = cls(host, int(port))
        relay._server = await asyncio.start_server(relay._accept, "127.0.0.1", 0)
        return relay

    @property
    def url(self) -> str:
        """host:port to connect to."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def drop(self) -> None:
        """Breaks every connection, and takes no new ones."""
        self._dropped = True
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        """Ends everything."""
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, back]
        if self._dropped:  # while this connection was being made
            self.drop()
            return
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while block := await source.read(BLOCK):
            sink.write(block)
            await sink.drain()
    except OSError:  # the other side went away
        return
    finally:
        sink.close()
