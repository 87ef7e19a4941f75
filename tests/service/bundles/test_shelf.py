from __future__ import annotations

import pytest

from models.bundle import open_bundle
from models.devices import Device
from models.errors import BundleMissing
from service.bundles.shelf import Loaded, Note, Shelf, Standing
from tests.tiny import write_tiny_bundle

STAMP, OTHER = (("locator.onnx", 1, 1),), (("locator.onnx", 2, 2),)
KEY = ("tiny", "9")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A bundle's two replicas."""
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundles"))
    return Loaded(tuple(open_bundle(folder, Device("cpu", 1)) for _ in range(2)), STAMP)


def test_a_change_makes_a_new_shelf_and_leaves_the_old_one(loaded):
    empty = Shelf()

    full = empty.with_bundle(KEY, loaded)

    assert empty.versions() == {}
    assert full.versions() == {"tiny": ["9"]}
    assert full.without(frozenset({KEY}), "unloaded").versions() == {}


def test_versions_are_ordered_as_numbers_whatever_came_first(loaded):
    shelf = Shelf()
    for version in ("10", "9", "1.10", "1.9"):
        shelf = shelf.with_bundle(("tiny", version), loaded)

    assert shelf.versions() == {"tiny": ["1.9", "1.10", "9", "10"]}


def test_each_device_has_its_replica(loaded):
    shelf = Shelf().with_bundle(KEY, loaded)

    picked = [shelf.pick("tiny", None, device) for device in (0, 1)]

    assert picked[0] is loaded.replicas[0]
    assert picked[1] is loaded.replicas[1]


def test_what_is_not_loaded_is_missing_and_what_is_there_is_named(loaded):
    shelf = Shelf().with_bundle(KEY, loaded)

    with pytest.raises(BundleMissing, match="loaded are: tiny"):
        shelf.pick("other", None, 0)
    with pytest.raises(BundleMissing, match="loaded are: 9"):
        shelf.pick("tiny", "1", 0)


def test_a_folder_is_known_in_the_state_that_was_loaded_or_refused(loaded):
    shelf = Shelf().with_bundle(KEY, loaded).noted(KEY, Note("bad", OTHER))

    assert shelf.knows(KEY, STAMP)
    assert shelf.knows(KEY, OTHER)
    assert not shelf.knows(KEY, ())
    assert not shelf.knows(("tiny", "10"), STAMP)


def test_a_bundle_that_is_loaded_after_all_has_no_note(loaded):
    shelf = Shelf().noted(KEY, Note("bad", OTHER)).with_bundle(KEY, loaded)

    assert shelf.standings({KEY: STAMP}, None) == [Standing("tiny", "9", "READY")]


def test_a_note_on_a_folder_that_is_gone_is_dropped():
    shelf = Shelf().noted(KEY, Note("bad", STAMP))

    assert shelf.with_notes_on({KEY: STAMP}).knows(KEY, STAMP)
    assert not shelf.with_notes_on({}).knows(KEY, STAMP)


def test_the_index_tells_how_each_version_stands(loaded):
    shelf = Shelf().with_bundle(KEY, loaded).noted(("tiny", "10"), Note("bad", OTHER))
    on_disk = {("tiny", "10"): OTHER, ("tiny", "11"): OTHER, ("tiny", "12"): OTHER}

    assert shelf.standings(on_disk, ("tiny", "11")) == [
        Standing("tiny", "9", "READY", "its folder is gone"),
        Standing("tiny", "10", "UNAVAILABLE", "bad"),
        Standing("tiny", "11", "LOADING"),
        Standing("tiny", "12", "UNAVAILABLE", "not loaded"),
    ]
