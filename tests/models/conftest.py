"""The tiny bundle, sealed and opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.bundle import Bundle, open_bundle
from models.devices import Device
from tests.tiny import write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles: `tiny` in its version 1."""
    root = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(root)
    return root


@pytest.fixture(scope="session")
def tiny(tiny_root: Path) -> Bundle:
    """The tiny bundle on one thread of a CPU."""
    return open_bundle(tiny_root / "tiny" / "1", Device("cpu", threads=1))
