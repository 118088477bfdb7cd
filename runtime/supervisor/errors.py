"""Why a server could not be started or kept. Messages read as those of `runtime.errors`."""

from __future__ import annotations

from runtime.errors import ServeError


class InstallError(ServeError):
    """No usable tritonserver on this machine."""


class BadAccess(ServeError):
    """A key, a token or a certificate that cannot be used."""

    code = "INVALID_ARG"


class UnusablePath(ServeError):
    """A path that Triton's Python backend cannot be given, even by a link."""

    code = "INVALID_ARG"


class PortInUse(ServeError):
    """A port that the server was told to listen on is taken."""

    code = "UNAVAILABLE"


class StartFailed(ServeError):
    """tritonserver ended, refused a model or did not become ready in time."""


class ServerDown(ServeError):
    """The server was lost too often in too short a time."""
