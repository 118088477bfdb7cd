"""Who may do what: Triton's own options for restricted endpoints, the token and TLS. Starts nothing.

Triton knows two kinds of door. gRPC checks a header `triton-grpc-protocol-<name>`, HTTP a header `<name>`;
gRPC speaks TLS, HTTP and metrics do not.
"""

from __future__ import annotations

import re
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

from client.protocol.wire import ADMIN_HEADER, KEY_HEADER, TOKEN_HEADER, bearer, is_loopback
from runtime.supervisor.errors import BadAccess

ENDPOINTS = (
    "health", "metadata", "inference", "shared-memory", "model-config", "model-repository", "statistics",
    "trace", "logging",
)  # fmt: skip
# What can stop the server, read its memory or fill its disk. Clients and perf_analyzer need none of it.
RESTRICTED = "model-repository,shared-memory,trace,logging"
# What a token opens. Health stays open: load balancers and our own readiness ask for it.
WITH_TOKEN = "inference,metadata,model-config,statistics"
SECRET = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # what a bearer token may hold (RFC 6750), and not too few of it
MADE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Access:
    """Doors and their keys. Empty is not given.

    Args:
        restricted: endpoints that need the admin key, between commas; empty opens them all.
        admin_key_file: file with the admin key; without it every run of the server has its own, secret one.
        token_file: file with the token that every call needs.
        tls_cert: certificate chain of the server (PEM); turns TLS on for gRPC.
        tls_key: its private key.
        tls_client_ca: clients need a certificate of this authority.
    """

    restricted: str = RESTRICTED
    admin_key_file: str = ""
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""

    def __post_init__(self) -> None:
        for name in filter(None, self.restricted.split(",")):
            if name not in ENDPOINTS:
                raise ValueError(f"restricted: {name!r} is none of {', '.join(ENDPOINTS)}")
            if name == "health":
                raise ValueError("restricted: 'health' tells the supervisor that the server lives")
            if self.token_file and name in WITH_TOKEN.split(","):
                raise ValueError(f"restricted: {name!r} is what the token of token_file opens")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError(f"{'tls_key' if self.tls_cert else 'tls_cert'}: missing, a certificate has its key")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca: needs tls_cert and tls_key")

    def admin_key(self) -> str:
        """The key of the restricted endpoints, for one run of the server.

        Raises:
            BadAccess: the file holds none.
        """
        if not self.admin_key_file:
            return new_key()
        return read_secret("admin_key_file", self.admin_key_file)

    def check_files(self) -> None:
        """Raises BadAccess for a file that cannot be used; of TLS, Triton only says that the port is taken."""
        self.admin_key()
        self.token()
        if self.tls_cert:
            self._check_tls()

    def token(self) -> str:
        """The token of the file, or nothing.

        Raises:
            BadAccess: the file holds none.
        """
        return read_secret("token_file", self.token_file) if self.token_file else ""

    def arguments(self, admin_key: str) -> tuple[str, ...]:
        """Options of tritonserver."""
        doors = []
        if self.restricted:
            doors.append(f"{self.restricted}:{ADMIN_HEADER}={admin_key}")
        if self.token_file:
            doors.append(f"{WITH_TOKEN}:{TOKEN_HEADER}={bearer(self.token())}")
        return (
            *(f"--{option}={door}" for door in doors for option in ("grpc-restricted-protocol", "http-restricted-api")),
            *(f"--{kind}-header-forward-pattern=(?i){KEY_HEADER}" for kind in ("grpc", "http")),
            *self._tls(),
        )

    def _tls(self) -> tuple[str, ...]:
        if not self.tls_cert:
            return ()
        pair = (f"--grpc-server-cert={self.tls_cert}", f"--grpc-server-key={self.tls_key}")
        if not self.tls_client_ca:
            return ("--grpc-use-ssl=true", *pair)
        return ("--grpc-use-ssl-mutual=true", *pair, f"--grpc-root-cert={self.tls_client_ca}")

    def _check_tls(self) -> None:
        try:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise BadAccess(
                "tls_cert", f"{self.tls_cert} with {self.tls_key}: {error}", "give a PEM chain and its key"
            ) from None
        if not self.tls_client_ca:
            return
        try:
            made.load_verify_locations(self.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise BadAccess("tls_client_ca", f"{self.tls_client_ca}: {error}", "give a PEM certificate") from None


def new_key() -> str:
    """A key that cannot be guessed."""
    return secrets.token_urlsafe(MADE_BYTES)


def read_secret(field: str, path: str) -> str:
    """The one line of a file.

    Raises:
        BadAccess: it cannot be read or holds something else; its content is never shown.
    """
    try:
        found = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadAccess(field, f"{path}: {type(error).__name__}", "give a file that this user can read") from None
    if not SECRET.fullmatch(found):
        raise BadAccess(
            field,
            f"{path} does not hold 16 or more of A-Z a-z 0-9 . _ ~ + / = - in one line",
            "make one: openssl rand -hex 32",
        )
    return found


def exposure(host: str, access: Access) -> str | None:
    """What an operator should know about an address that others reach; None when there is nothing."""
    if is_loopback(host):
        return None
    if not access.token_file and not access.tls_client_ca:
        who = "everyone who reaches this address may use the server; give --token-file or --tls-client-ca"
        return who if access.tls_cert else f"{who}, and --tls-cert, or a proxy before a loopback address"
    return None if access.tls_cert else "the token travels unencrypted; give --tls-cert and --tls-key"
