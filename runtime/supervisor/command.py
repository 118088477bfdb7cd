"""The command line and environment of tritonserver for a rendered folder."""

from __future__ import annotations

import json
from collections.abc import Mapping

from client.protocol.wire import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, MIN_PING_INTERVAL_MS
from runtime.errors import BuildError
from runtime.products import exact_products
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.config import ServerConfig, bracketed

OPTIONS_FILE = "options.json"
DEFAULT_THREADS = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
CPU_TARGET = "cpu"


def read_options(config: ServerConfig) -> dict[str, object]:
    """The options file of the rendered folder; empty when there is none.

    Raises:
        BuildError: it is no JSON object.
    """
    path = config.out / OPTIONS_FILE
    try:
        options = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BuildError(str(path), f"is not JSON ({error})", "run `make build-engines` again") from error
    if not isinstance(options, dict):
        raise BuildError(
            str(path), f"holds a {type(options).__name__}, not an object", "run `make build-engines` again"
        )
    return options


def environment(install: TritonInstall, options: Mapping[str, object]) -> dict[str, str]:
    """Variables of the server: every stub is a process of its own and must not take all cores."""
    threads = options.get("threads", DEFAULT_THREADS)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise BuildError("threads", f"{threads!r} is not a whole number above 0", "run `make build-engines` again")
    return {**exact_products(), **install.environment, **{name: str(threads) for name in THREAD_VARIABLES}}


def command(
    config: ServerConfig, install: TritonInstall, options: Mapping[str, object], shm_prefix: str, admin_key: str
) -> tuple[str, ...]:
    """The whole command line."""
    at, hosts = config.addresses, config.addresses.hosts()
    backends = [f"--backend-directory={install.backend_directory}"] if install.backend_directory else []
    gpu_metrics = options.get("target", CPU_TARGET) != CPU_TARGET
    return (
        *install.command,
        *backends,
        f"--model-repository={config.repository}",
        "--model-control-mode=explicit",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--http-address={_http(hosts['http_port'])}",
        f"--http-port={at.http_port}",
        f"--grpc-address={bracketed(at.host)}",
        f"--grpc-port={at.grpc_port}",
        f"--metrics-address={_http(hosts['metrics_port'])}",
        f"--metrics-port={at.metrics_port}",
        f"--allow-gpu-metrics={str(gpu_metrics).lower()}",
        f"--exit-timeout-secs={max(1, int(config.patience.stop))}",
        f"--grpc-keepalive-time={KEEPALIVE_MS}",
        f"--grpc-keepalive-timeout={KEEPALIVE_TIMEOUT_MS}",
        f"--grpc-http2-min-recv-ping-interval-without-data={MIN_PING_INTERVAL_MS}",
        "--grpc-http2-max-pings-without-data=0",
        "--grpc-keepalive-permit-without-calls=true",  # else routers on the way forget clients between two questions
        *config.access.arguments(admin_key),
        *config.triton_args,
    )


def _http(host: str) -> str:
    """As Triton's HTTP library takes it: without its prefix, an IPv6 address becomes 255.255.255.255."""
    return f"ipv6:{host}" if ":" in host else host
