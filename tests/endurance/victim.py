"""A client that will be killed: sends requests from files and reads their answers until it dies.

    python victim.py host:port request...

Prints a line once the first response of every request came. Imports gRPC only: it starts in a fraction of the
time that the client library takes.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import grpc

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def main() -> None:
    url, *paths = sys.argv[1:]
    stream = grpc.insecure_channel(url).stream_stream(STREAM)
    calls = [stream(iter([Path(path).read_bytes()])) for path in paths]
    for call in calls:
        next(call, None)
    print("speaking", flush=True)
    readers = [threading.Thread(target=_drain, args=(call,), daemon=True) for call in calls]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def _drain(call: grpc.Call) -> None:
    for _ in call:
        pass


if __name__ == "__main__":
    main()
