"""What every test may ask for: real pictures, named by the environment, and a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import Postgres


@pytest.fixture(scope="session")
def bsdata_folder() -> Path:
    """BSData, pitting on ball screws: `images/`, `labels/` and `split.csv`."""
    return folder_named_by("FLAWSMITH_BSDATA")


@pytest.fixture(scope="session")
def magnetic_tile_folder() -> Path:
    """Magnetic tiles with masks, a folder per kind and `index.csv`."""
    return folder_named_by("FLAWSMITH_MAGNETIC_TILE")


def folder_named_by(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no folder of real pictures")
    return Path(os.environ[variable]).resolve(strict=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    if item.get_closest_marker("gpu") and not has_gpu:
        pytest.skip("no NVIDIA device under /dev")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres cluster of its own."""
    cluster = Postgres()
    yield cluster
    cluster.close()
