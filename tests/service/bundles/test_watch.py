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

SAID = ("WARNING", "ERROR")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bundles"


@pytest.fixture
def loading(folder):
    write_tiny_bundle(folder)
    settings = Settings(bundles=folder, threads=1, watch_s=0.02)
    return Loading(lambda: open_library(settings, Telemetry()))


def test_a_watched_folder_is_followed_until_the_end(loading, folder):
    async def follow():
        async with watched(loading, 0.02):
            library = await loading.wait()
            write_tiny_bundle(folder, version="2")
            async with asyncio.timeout(20):
                while library.pick().manifest.version != "2":
                    await asyncio.sleep(0.02)
        write_tiny_bundle(folder, version="3")
        await asyncio.sleep(0.2)

    asyncio.run(follow())

    assert loading.library.versions() == {"tiny": ["1", "2"]}


@pytest.mark.parametrize("harm", [{"target": "x" * 300}, {}], ids=["unreadable", "closed"])
def test_a_look_that_fails_is_logged_and_not_the_last(loading, folder, harm, caplog):
    """The harm: a folder that no system call takes, or a library that changes nothing more."""

    async def follow():
        async with watched(loading, 0.02):
            library = await loading.wait()
            if harm:
                folder.rename(folder.with_name("aside"))
                folder.symlink_to(harm["target"])
            else:
                library.close()
            async with asyncio.timeout(20):
                while len([one for one in caplog.records if one.levelname in SAID]) < 2:
                    await asyncio.sleep(0.02)

    asyncio.run(follow())

    assert "the bundles' folder cannot be" in caplog.text


def test_zero_seconds_never_look(loading, folder):
    async def wait():
        async with watched(loading, 0.0):
            await loading.wait()
            write_tiny_bundle(folder, version="2")
            await asyncio.sleep(0.2)

    asyncio.run(wait())

    assert loading.library.versions() == {"tiny": ["1"]}


def test_a_library_that_cannot_be_opened_is_not_watched(folder):
    loading = Loading(lambda: open_library(Settings(bundles=folder), Telemetry()))

    async def wait():
        async with watched(loading, 0.02):
            with pytest.raises(BundleMissing):
                await loading.wait()

    asyncio.run(wait())
