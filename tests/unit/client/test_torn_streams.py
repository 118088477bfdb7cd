"""Streams that a proxy ends because the server behind it is gone, in frames of HTTP/2 as proxies send them."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from client import NO_RETRY, ChatClient, RetryPolicy, ServerLost

PREFACE, HEAD = 24, 9
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


BEGUN = b"\x88" + literal(b"content-type", b"application/grpc")  # 200
ENDS = {
    "without an error": lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 0)),
    "internal error": lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 2)),
    "refused": lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 7)),
    "cancelled": lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", 8)),
    "without trailers": lambda stream: frame(DATA, END_STREAM, stream),
}


def serve(connection, end):
    """Begins every answer, and ends it so."""
    with connection, connection.makefile("rb") as file:
        file.read(PREFACE)
        connection.sendall(frame(SETTINGS, 0, 0))
        while len(head := file.read(HEAD)) == HEAD:
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big")
            file.read(size)
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind == HEADERS:
                connection.sendall(frame(HEADERS, END_HEADERS, stream, BEGUN) + end(stream))


def accept(listener, end):
    try:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], end), daemon=True).start()
    except OSError:  # the test is over
        pass


@pytest.fixture
def proxy(request):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            try:
                while True:
                    threading.Thread(
                        target=serve, args=(listener.accept()[0], ENDS[request.param]), daemon=True
                    ).start()
            except OSError:  # the test is over
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("proxy", ENDS, indirect=True)
def test_a_stream_that_a_proxy_ends_is_a_lost_server_and_tried_again(proxy):
    for policy in (NO_RETRY, RetryPolicy(attempts=3, first_s=0.01, most_s=0.01)):
        with ChatClient(proxy, policy) as chat:
            stream = chat.stream(text="hi", timeout=20)
            with pytest.raises(ServerLost, match=r"127\.0\.0\.1:\d+ cannot be reached or went away"):
                list(stream)
            assert stream.attempts == policy.attempts
