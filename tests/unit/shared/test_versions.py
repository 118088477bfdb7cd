"""Versions of libraries, and of what may stand in their place."""

import importlib.metadata

import pytest

from runtime.manifest import installed


def test_a_replacement_counts(monkeypatch):
    def version(name):
        if name != "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.24.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert installed("onnxruntime") == "1.24.0"
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="torch"):
        installed("torch")
