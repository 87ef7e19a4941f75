from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import Mask, RgbImage
from models.steps.objects import find_object


def disc(hw: tuple[int, int], centre_xy: tuple[float, float], radius_px: float) -> Mask:
    rows, columns = np.mgrid[: hw[0], : hw[1]] + 0.5
    inside: Mask = np.hypot(columns - centre_xy[0], rows - centre_xy[1]) < radius_px
    return inside


def picture_of(part: Mask, *, inside: int, outside: int, noise: float = 8.0) -> RgbImage:
    grey = np.where(part, inside, outside) + np.random.default_rng(0).normal(0, noise, part.shape)
    return np.dstack([grey.clip(0, 255).astype(np.uint8)] * 3)


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("hw", [(120, 200), (900, 1300)])
def test_a_bright_plate_on_dark_is_found(hw: tuple[int, int]) -> None:
    plate = disc(hw, (hw[1] / 2, hw[0] / 2), hw[0] / 3)

    found = find_object(picture_of(plate, inside=190, outside=20), threshold="otsu")

    assert found.shape == hw
    assert found.dtype == np.bool_
    assert overlap(found, plate) > 0.97


def test_a_dark_part_on_bright_is_found_by_its_polarity() -> None:
    part = disc((120, 200), (100, 60), 40)
    image = picture_of(part, inside=20, outside=220)

    assert overlap(find_object(image, threshold="otsu", polarity="dark"), part) > 0.97


def test_an_unevenly_lit_surface_is_one_object_and_whole() -> None:
    ramp = np.linspace(90, 135, 200)[None, :] + np.random.default_rng(0).normal(0, 6, (120, 200))
    image = np.dstack([ramp.astype(np.uint8)] * 3)

    assert find_object(image, threshold="otsu").all()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_flat_picture_is_object_everywhere(grey: int) -> None:
    image = np.full((64, 64, 3), grey, np.uint8)

    assert find_object(image, threshold="otsu").all()


def test_an_object_that_leaves_next_to_nothing_free_is_everywhere() -> None:
    plate = np.ones((200, 200), bool)
    plate[:, :3] = False
    image = picture_of(plate, inside=190, outside=20)

    assert find_object(image, threshold="otsu").all()
    assert not find_object(image, threshold="otsu", full_share=1.0).all()


def test_the_gap_that_makes_a_background_is_a_parameter() -> None:
    plate = disc((120, 200), (100, 60), 40)
    image = picture_of(plate, inside=140, outside=100, noise=3.0)

    assert find_object(image, threshold="otsu").all()
    assert overlap(find_object(image, threshold="otsu", least_gap=20.0), plate) > 0.95


def test_specks_gaps_and_a_smaller_part_are_not_kept() -> None:
    plate = disc((300, 400), (150, 150), 110)
    seen = plate | disc((300, 400), (360, 60), 20) | disc((300, 400), (350, 250), 2)
    seen &= ~disc((300, 400), (150, 150), 2)

    found = find_object(picture_of(seen, inside=190, outside=20), threshold="otsu")

    assert overlap(found, plate) > 0.97
    assert not found[:, 300:].any()
    assert found[148:152, 148:152].all()


def test_without_a_threshold_everything_within_the_margins_is_object() -> None:
    image = picture_of(disc((100, 200), (100, 50), 20), inside=190, outside=20)

    found = find_object(image, threshold="none", margin_hw=(0.1, 0.2))

    expected = np.zeros((100, 200), bool)
    expected[10:90, 40:160] = True
    np.testing.assert_array_equal(found, expected)


def test_a_margin_is_never_object() -> None:
    plate = disc((100, 200), (100, 50), 45)
    image = picture_of(plate, inside=190, outside=20)

    found = find_object(image, threshold="otsu", margin_hw=(0.25, 0.0))

    assert not found[:25].any()
    assert not found[75:].any()
    assert overlap(found[25:75], plate[25:75]) > 0.97


def test_colours_are_judged_by_their_brightness() -> None:
    plate = disc((120, 200), (100, 60), 40)
    image = np.zeros((120, 200, 3), np.uint8)
    image[plate] = (60, 255, 60)
    image[~plate] = (0, 0, 90)

    assert overlap(find_object(cv2.blur(image, (3, 3)), threshold="otsu"), plate) > 0.95
