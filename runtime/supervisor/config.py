"""What the supervisor is told: folder, addresses, access, patience. No processes, no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runtime.supervisor.access import Access

DEFAULT_HOST = "127.0.0.1"
DEFAULT_GRPC_PORT = 8001
DEFAULT_HTTP_PORT = 8000
DEFAULT_METRICS_PORT = 8002
MAX_PORT = 65535

PUBLIC_MODEL = "fun_audio_chat"
# Loaded in this order, what is ready already is left alone: an ensemble brings its members (naming
# them first would load them twice), and the public model comes last, because its warm-up calls all
# the others.
LOAD_ORDER = (
    ("speech_encoder", "token2wav"),
    ("log_mel", "audio_encoder", "flow", "vocoder"),
    (PUBLIC_MODEL,),
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens. ``http_host``: of HTTP and metrics, which know no TLS; empty is ``host``.

    IPv6 addresses may come with brackets and are kept without.
    """

    host: str = DEFAULT_HOST
    grpc_port: int = DEFAULT_GRPC_PORT
    http_port: int = DEFAULT_HTTP_PORT
    metrics_port: int = DEFAULT_METRICS_PORT
    http_host: str = ""

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("host: '' names no address")
        for name in ("host", "http_host"):
            object.__setattr__(self, name, getattr(self, name).strip("[]"))
        for name, port in self.ports().items():
            if not 1 <= port <= MAX_PORT:
                raise ValueError(f"{name}: {port} is not in 1..{MAX_PORT}")
        if len(set(self.ports().values())) != len(self.ports()):
            raise ValueError(f"ports: {sorted(self.ports().values())} are not all different")

    def ports(self) -> dict[str, int]:
        """The three ports by the name of their option."""
        return {"grpc_port": self.grpc_port, "http_port": self.http_port, "metrics_port": self.metrics_port}

    def hosts(self) -> dict[str, str]:
        """Where each port listens."""
        plain = self.http_host or self.host
        return {"grpc_port": self.host, "http_port": plain, "metrics_port": plain}

    @property
    def grpc(self) -> str:
        """host:port of the gRPC endpoint."""
        return f"{_local(self.host)}:{self.grpc_port}"

    @property
    def http(self) -> str:
        """Base URL of the HTTP endpoint."""
        return f"http://{_local(self.http_host or self.host)}:{self.http_port}"

    @property
    def ready_url(self) -> str:
        """Our readiness: true only after the public model answered its warm-up."""
        return f"{self.http}/v2/models/{PUBLIC_MODEL}/ready"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{_local(self.http_host or self.host)}:{self.metrics_port}/metrics"


def bracketed(host: str) -> str:
    """As it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _local(host: str) -> str:
    """The address by which this machine itself reaches the server, as it stands before a port."""
    return bracketed({"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(host, host))


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of the supervisor, all in seconds.

    Args:
        load: until one model is loaded and warm.
        poll: between two looks at the processes.
        heartbeat: the frame loop's heartbeat may be this old before the server is restarted.
        drain: live streams get this long to end after a stop was asked for.
        stop: tritonserver gets this long to exit before its group is killed.
        quick: a server lost within this time of being ready, or before it is, counts as a quick failure.
        backoff: before the first restart; doubles with every quick failure.
        max_backoff: the doubling ends here.
        quick_failures: after so many quick failures in a row the supervisor gives up.
    """

    load: float = 1800.0
    poll: float = 0.25
    heartbeat: float = 15.0
    drain: float = 30.0
    stop: float = 10.0
    quick: float = 60.0
    backoff: float = 1.0
    max_backoff: float = 30.0
    quick_failures: int = 5

    def __post_init__(self) -> None:
        for name in ("load", "poll", "heartbeat", "stop", "quick", "backoff", "max_backoff"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0 seconds")
        if self.drain < 0:
            raise ValueError(f"drain: {self.drain} is below 0 seconds")
        if self.quick_failures < 1:
            raise ValueError(f"quick_failures: {self.quick_failures} is below 1")

    def delay(self, failures: int) -> float:
        """How long to wait before the restart after so many quick failures in a row."""
        return min(self.max_backoff, self.backoff * 2.0 ** max(0, failures - 1))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that one supervisor needs.

    Args:
        out: the rendered folder, which holds `model_repository/` and `options.json`.
        log_file: where tritonserver's output goes; None leaves it on standard error.
        verify: check the folder against its manifest before starting.
        triton_args: more arguments for tritonserver, as they are.
        triton: the tritonserver binary; None looks for one (see ``bundle.find_install``).
    """

    out: Path
    addresses: Addresses = Addresses()
    patience: Patience = Patience()
    access: Access = field(default_factory=Access)
    log_file: Path | None = None
    verify: bool = True
    triton_args: tuple[str, ...] = ()
    triton: str | None = None

    @property
    def repository(self) -> Path:
        """The folder that tritonserver is pointed at."""
        return self.out / "model_repository"
