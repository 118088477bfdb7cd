"""A way to a server that is long, stands still for a while, forgets its connections, or is cut like a cable."""

from __future__ import annotations

import socket
import struct
import threading
import time

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset


class Relay:
    """Passes bytes on to ``url``, each ``delay_s`` late, while ``flows`` is set; counts the connections."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._server, self.delay_s, self.connections = (host, int(port)), 0.0, 0
        self.flows = threading.Event()
        self.flows.set()
        self._sockets: list[socket.socket] = []
        self._dropped = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no new connections; those that are there stay."""
        self.flows.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        except OSError:  # closed before
            return
        self._listener.close()

    def drop(self) -> None:
        """Takes no new connections and resets those that are there."""
        self._dropped = True
        self.close()
        self._reset()

    def _reset(self) -> None:
        for end in self._sockets:
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads, which closes the other end
            except OSError:  # has ended by itself
                continue

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._server)
            except OSError:  # the relay is closed
                return
            self.connections += 1
            self._sockets += [here, there]
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()
            if self._dropped:  # while this connection was being made
                self._reset()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while read := source.recv(CHUNK):
                time.sleep(self.delay_s)
                self.flows.wait()
                sink.sendall(read)
        except OSError:
            pass
        sink.close()
