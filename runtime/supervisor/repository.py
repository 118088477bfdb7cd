"""Triton's HTTP repository API: load a model, ask whether it is ready."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request

from client.protocol.wire import ADMIN_HEADER
from runtime.supervisor.errors import StartFailed

PROBE_S = 2.0
READY_S, POLL_S = 10.0, 0.05
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is no way to a local server


class RepositoryApi:
    """One server's repository API.

    Args:
        base: base URL of the HTTP endpoint.
        admin_key: opens the repository where it is restricted; only `load` needs it.
    """

    def __init__(self, base: str, admin_key: str = "") -> None:
        self._base, self._headers = base, {ADMIN_HEADER: admin_key}

    def live(self) -> bool:
        """Whether the server answers."""
        return self._probe("/v2/health/live")

    def ready(self, model: str) -> bool:
        """Whether the model is loaded."""
        return self._probe(f"/v2/models/{model}/ready")

    def load(self, model: str, timeout: float) -> None:
        """Loads a model and waits until it is ready.

        Raises:
            StartFailed: the server refused it, was lost, or took longer than `timeout` seconds.
        """
        url = f"{self._base}/v2/repository/models/{model}/load"
        request = urllib.request.Request(url, data=b"{}", headers=self._headers, method="POST")
        try:
            with _OPENER.open(request, timeout=timeout):
                pass
        except urllib.error.HTTPError as error:
            raise StartFailed(model, f"cannot be loaded: {_reason(error)}", "see the server's log") from error
        except (OSError, http.client.HTTPException) as error:
            late = isinstance(getattr(error, "reason", error), TimeoutError)
            problem = f"was not loaded within {timeout:g} s" if late else f"was not loaded: {error}"
            raise StartFailed(model, problem, "see the server's log") from error
        # While other models load, Triton may take a moment to say so.
        deadline = time.monotonic() + READY_S
        while not self.ready(model):
            if time.monotonic() > deadline:
                raise StartFailed(model, "was loaded and is not ready", "see the server's log")
            time.sleep(POLL_S)

    def _probe(self, path: str) -> bool:
        try:
            with _OPENER.open(self._base + path, timeout=PROBE_S) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # the second: something else listens there
            return False


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read().decode(errors="replace")
    try:
        return str(json.loads(body)["error"]).rstrip("\n;")
    except (ValueError, KeyError, TypeError):
        return body.strip() or f"HTTP {error.code}"
