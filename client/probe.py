"""Asks a server a cheap question that needs what every request needs, such as TLS and token."""

from __future__ import annotations

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .access import Access, metadata_of
from .connection import open_channel
from .errors import AccessDenied, ChatError, from_rpc
from .protocol.tensors import FUN_AUDIO_CHAT

PROBE_S = 5.0


def probe(url: str, access: Access) -> None:
    """Asks for the model's description.

    Raises:
        ChatError: why the server does not answer this caller.
    """
    with open_channel(url, access.tls) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelMetadataRequest(name=FUN_AUDIO_CHAT.name)
        try:
            stub.ModelMetadata(request, timeout=PROBE_S, metadata=metadata_of(access.headers))
        except grpc.RpcError as error:
            raise from_rpc(error, url) from None


def answers(url: str, access: Access) -> bool:
    """Whether our server is there, be it with a refusal. HTTP cannot tell where its port is not to be reached."""
    try:
        probe(url, access)
    except AccessDenied:
        return True
    except ChatError:
        return False
    return True
