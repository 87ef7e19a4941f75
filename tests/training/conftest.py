"""A data set that fits into milliseconds, and Fabric on one CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning_fabric import Fabric

from tests.training.specks import draw_dataset, write_mask_folder
from training.data import Dataset


@pytest.fixture(scope="session")
def data() -> Dataset:
    return draw_dataset()


@pytest.fixture
def mask_folder(tmp_path: Path, data: Dataset) -> Path:
    return write_mask_folder(tmp_path / "pictures", data)


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)
