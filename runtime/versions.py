"""Versions of installed libraries. Standard library only: the doctor asks where nothing is installed."""

from __future__ import annotations

import importlib.metadata

# Another distribution with the same module, which an operator may have put in its place.
REPLACEMENTS = {"onnxruntime": "onnxruntime-gpu"}


def installed(name: str) -> str:
    """Version of a distribution, or of the one that replaces it. Raises PackageNotFoundError."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name not in REPLACEMENTS:
            raise
        return importlib.metadata.version(REPLACEMENTS[name])
