from __future__ import annotations

import asyncio
import threading

import pytest

from models.errors import BundleAltered
from service.bundles.loading import Loading, StillLoading


@pytest.fixture
def held():
    """A library that is being opened until the event is set."""
    may_end = threading.Event()

    def open_it():
        assert may_end.wait(10)
        return "library"

    loading = Loading(open_it)
    yield loading, may_end
    may_end.set()


def test_there_is_no_library_until_it_is_opened(held):
    loading, may_end = held

    with pytest.raises(StillLoading):
        loading.require_done()
    with pytest.raises(StillLoading):
        _ = loading.library
    may_end.set()

    assert asyncio.run(loading.wait()) == loading.library == "library"
    loading.require_done()
    assert loading.error is None


def test_who_waits_for_a_library_that_fails_learns_why_and_who_asks_waits_on():
    def open_it():
        raise BundleAltered("one graph is changed")

    loading = Loading(open_it)

    with pytest.raises(BundleAltered, match="one graph"):
        asyncio.run(loading.wait())
    with pytest.raises(StillLoading):
        _ = loading.library
    assert isinstance(loading.error, BundleAltered)
