from __future__ import annotations

import numpy as np
import pytest

from models.bundle import open_bundle
from models.detection import detect
from models.devices import Device
from models.steps.pictures import Picture
from tests.bench.slicing import lay_tiles, slice_picture
from tests.tiny import CROP_PX, write_tiny_bundle


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundles"))
    return open_bundle(folder, Device("cpu", 1)).detector


def test_slicing_finds_the_same_red_square_as_the_story(detector):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:30, 40:52, 0] = 255

    (sliced,) = slice_picture(Picture(pixels), detector)
    (told,) = detect(Picture(pixels), detector).defects

    assert sliced.box == told.region.box == (40, 20, 12, 10)
    assert sliced.mask.tolist() == told.region.mask.tolist()


def test_a_square_on_a_tile_border_stays_one_region(detector):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:40, 20:40, 0] = 255

    (sliced,) = slice_picture(Picture(pixels), detector)

    assert sliced.box == (20, 20, 20, 20)


def test_tiles_cover_the_picture_and_overlap_by_a_fifth():
    tiles = lay_tiles((96, 128), CROP_PX)

    seen = np.zeros((96, 128), bool)
    for tile in tiles:
        seen[tile.slices_in((96, 128))] = True
    assert seen.all()
    assert sorted({tile.x for tile in tiles}) == [0, 26, 52, 78, 96]


def test_a_picture_smaller_than_a_tile_is_one_tile():
    assert [tile.box for tile in lay_tiles((20, 30), CROP_PX)] == [(0, 0, CROP_PX, CROP_PX)]
