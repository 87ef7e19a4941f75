from __future__ import annotations

import asyncio

import pytest

from models.errors import BundleMissing
from service.bundles.library import open_library
from service.bundles.loading import Loading
from service.bundles.watch import watched
from service.settings import Settings
from service.telemetry import Telemetry
from tests.tiny import write_tiny_bundle


@pytest.fixture
def loading(tmp_path):
    write_tiny_bundle(tmp_path)
    settings = Settings(bundles=tmp_path, threads=1, watch_s=0.02)
    return Loading(lambda: open_library(settings, Telemetry()))


def test_a_watched_folder_is_followed_until_the_end(loading, tmp_path):
    async def follow():
        async with watched(loading, 0.02):
            library = await loading.wait()
            write_tiny_bundle(tmp_path, version="2")
            async with asyncio.timeout(20):
                while library.pick().manifest.version != "2":
                    await asyncio.sleep(0.02)
        write_tiny_bundle(tmp_path, version="3")
        await asyncio.sleep(0.2)

    asyncio.run(follow())

    assert loading.library.versions() == {"tiny": ["1", "2"]}


def test_zero_seconds_never_look(loading, tmp_path):
    async def wait():
        async with watched(loading, 0.0):
            await loading.wait()
            write_tiny_bundle(tmp_path, version="2")
            await asyncio.sleep(0.2)

    asyncio.run(wait())

    assert loading.library.versions() == {"tiny": ["1"]}


def test_a_library_that_cannot_be_opened_is_not_watched(tmp_path):
    loading = Loading(lambda: open_library(Settings(bundles=tmp_path), Telemetry()))

    async def wait():
        async with watched(loading, 0.02):
            with pytest.raises(BundleMissing):
                await loading.wait()

    asyncio.run(wait())
