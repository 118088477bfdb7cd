"""A way to a server that is long, stands still for a while, or forgets its connections."""

from __future__ import annotations

import socket
import threading
import time

CHUNK = 65_536


class Relay:
    """Passes bytes on, each ``delay_s`` late, while ``flows`` is set; counts the connections."""

    def __init__(self, port: int) -> None:
        self.port, self.delay_s, self.connections = port, 0.0, 0
        self.flows = threading.Event()
        self.flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flows.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self.port))
            except OSError:  # the test is over
                return
            self.connections += 1
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while read := source.recv(CHUNK):
                time.sleep(self.delay_s)
                self.flows.wait()
                sink.sendall(read)
        except OSError:
            pass
        sink.close()
