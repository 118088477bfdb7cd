"""Certificates for tests, made with openssl: an authority, a server, a client, and a stranger."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
SERVER_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"
OTHER_NAMES = "subjectAltName=DNS:elsewhere.example"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    openssl(folder, "req", "-x509", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}")


def signed(folder: Path, name: str, by: str, names: str = SERVER_NAMES) -> None:
    openssl(folder, "req", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    (folder / "names").write_text(names)
    by_authority = ("-CA", f"{by}.crt", "-CAkey", f"{by}.key", "-CAcreateserial", "-extfile", "names")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *by_authority)


def make_certificates(folder: Path) -> Path:
    """Writes ca, server, client, named_otherwise (signed by ca) and stranger, each as .crt and .key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificates of these tests")
    authority(folder, "ca")
    authority(folder, "stranger")
    signed(folder, "server", "ca")
    signed(folder, "client", "ca")
    signed(folder, "named_otherwise", "ca", OTHER_NAMES)
    return folder
