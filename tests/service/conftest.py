"""A real application over tiny bundles, and small pictures to send it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle, open_bundle
from models.devices import Device
from models.steps.pictures import encode_png
from service.app import create_app
from service.settings import Settings
from tests.tiny import write_tiny_bundle

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products; `tiny` in the versions 9 and 10."""
    root = tmp_path_factory.mktemp("bundles")
    for product, version in (("tiny", "9"), ("tiny", "10"), ("second", "1")):
        write_tiny_bundle(root, product=product, version=version)
    return root


@pytest.fixture(scope="session")
def tiny(bundles: Path) -> Bundle:
    """A tiny bundle as it is opened, before anything is put round its graphs."""
    return open_bundle(bundles / "tiny" / "10", Device("cpu", threads=1))


@pytest.fixture
def serve(bundles: Path) -> Iterator[Serve]:
    """Start applications with given settings; they stop with the test."""
    with ExitStack() as stack:

        def start(**settings: object) -> TestClient:
            defaults = {"bundles": bundles, "default_product": "tiny", "threads": 1, "workers": 1}
            app = create_app(Settings(**{**defaults, **settings}))
            return stack.enter_context(TestClient(app))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """An application with the defaults."""
    return serve()


@pytest.fixture(scope="session")
def red_square_png() -> bytes:
    """96 high, 128 wide; red where x in 40..51 and y in 20..29."""
    pixels = np.full((96, 128, 3), 40, np.uint8)
    pixels[..., 0] = 0
    pixels[20:30, 40:52] = (255, 0, 0)
    return encode_png(pixels)


@pytest.fixture(scope="session")
def normal_png() -> bytes:
    """A bright object, 96 high and 128 wide, on a dark ground."""
    pixels = np.full((96, 128, 3), 10, np.uint8)
    pixels[8:88, 8:120] = np.random.default_rng(1).integers(170, 210, (80, 112, 3))
    return encode_png(pixels)
