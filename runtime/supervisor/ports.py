"""Are the ports free? Asked before tritonserver starts, which itself only says that it failed."""

from __future__ import annotations

import socket

from runtime.supervisor.config import Addresses
from runtime.supervisor.errors import PortInUse

ANY_PORT = 0


def check_free(addresses: Addresses) -> None:
    """Raises PortInUse, naming port and option, when another program holds one of the ports."""
    for name, port in addresses.ports().items():
        host = addresses.hosts()[name]
        try:
            _bind(host, port)
        except OSError as error:
            raise PortInUse(
                name,
                f"{port} on {host} cannot be used ({error.strerror or error})",
                f"stop the program that holds it, or choose another: make serve {name.upper()}=<port>",
            ) from error


def is_local(host: str) -> bool:
    """Whether a server can listen there: an address of this machine."""
    try:
        _bind(host, ANY_PORT)
    except OSError:
        return False
    return True


def free_addresses(host: str = "127.0.0.1") -> Addresses:
    """Addresses with three ports that are free now."""
    held = [socket.socket() for _ in range(3)]
    try:
        for item in held:
            item.bind((host, 0))
        grpc_port, http_port, metrics_port = (item.getsockname()[1] for item in held)
    finally:
        for item in held:
            item.close()
    return Addresses(host, grpc_port, http_port, metrics_port)


def _bind(host: str, port: int) -> None:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, proto) as probe:
        # As tritonserver does: connections that linger after a stop are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
