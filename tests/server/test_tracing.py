"""OpenTelemetry through Triton's own option: spans of a request arrive at a collector."""

from __future__ import annotations

import http.server
import threading

import pytest
from awaiting import until
from stub_repository import QUICK, make_stub_repository

from client import ChatClient
from runtime.supervisor.launch import ServerProcess


@pytest.fixture
def collector():
    """URL of an OTLP/HTTP endpoint, and what was posted there."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", posted
        server.shutdown()


def test_spans_arrive(triton, tmp_path, collector):
    url, posted = collector
    settings = ("mode=opentelemetry", "rate=1", "level=TIMESTAMPS", f"opentelemetry,url={url}")
    arguments = [f"--triton-arg=--trace-config={setting}" for setting in settings]
    with ServerProcess(make_stub_repository(tmp_path / "out"), options=(*QUICK, *arguments)) as server:
        with ChatClient(server.url) as chat:
            chat.ask(text="{}")
        wanted = (b"fun_audio_chat", b"InferRequest", b"compute")
        until(lambda: all(any(word in body for _, body in posted) for word in wanted), 60.0, "no span came")
    assert posted[0][0] == "/v1/traces"
