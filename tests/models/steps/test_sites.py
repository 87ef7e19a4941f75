from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.errors import ParameterInvalid
from models.steps.crops import Window
from models.steps.sites import (
    LEAST_SIDE_PX,
    Site,
    allow_box,
    as_bytes,
    cut_site,
    draw_site_center,
    draw_site_side_px,
    enlarge,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_site_is_as_much_larger_than_real_defects_as_was_asked_for() -> None:
    generator = rng()

    sides = [draw_site_side_px((20.0, 30.0, 100.0), (1.4, 2.6), generator) for _ in range(500)]

    assert min(sides) >= 28
    assert max(sides) <= 260
    assert 30 < float(np.median(sides)) < 100
    assert len(set(sides)) > 50


def test_no_site_is_smaller_than_the_least() -> None:
    assert draw_site_side_px((1.0, 2.0), (1.4, 2.6), rng()) == LEAST_SIDE_PX


def test_a_site_lies_around_any_allowed_pixel_and_no_other() -> None:
    allowed = np.zeros((6, 9), bool)
    allowed[0, 8] = allowed[2, 0] = allowed[2, 5] = allowed[5, 8] = True
    generator = rng()

    drawn = Counter(draw_site_center(allowed, generator) for _ in range(2000))

    assert set(drawn) == {(8.5, 0.5), (0.5, 2.5), (5.5, 2.5), (8.5, 5.5)}
    assert min(drawn.values()) > 400


def test_a_site_shows_the_picture_and_the_object_of_its_window() -> None:
    image = rng().integers(0, 256, (50, 60, 3), np.uint8)
    allowed = np.zeros((50, 60), bool)
    allowed[:, 30:] = True

    site = cut_site(image, allowed, (30.0, 25.0), 32, 32)

    assert site.window == Window(14, 9, 32)
    np.testing.assert_array_equal(site.image, image[9:41, 14:46])
    np.testing.assert_array_equal(site.object, allowed[9:41, 14:46])


def test_a_pixel_that_the_generators_see_is_object_where_most_of_it_is() -> None:
    allowed = np.zeros((64, 64), bool)
    allowed[:, 3:] = True

    site = cut_site(np.zeros((64, 64, 3), np.uint8), allowed, (32.0, 32.0), 64, 16)

    assert site.object.shape == (16, 16)
    assert not site.object[:, 0].any()
    assert site.object[:, 1:].all()


@pytest.mark.parametrize(("side_px", "scale"), [(16, -1.0), (32, 0.0), (64, 1.0), (128, 2.0)])
def test_the_generators_always_see_their_own_side_and_are_told_the_scale(
    side_px: int, scale: float
) -> None:
    image = np.zeros((200, 200, 3), np.uint8)

    site = cut_site(image, np.ones((200, 200), bool), (100.0, 100.0), side_px, 32)

    assert site.image.shape == (32, 32, 3)
    assert site.object.shape == (32, 32)
    assert site.object.all()
    assert site.scale == scale
    assert site.scale.dtype == np.float32


def test_what_a_generator_is_told_is_a_batch_of_one() -> None:
    site = Site(Window(0, 0, 64), np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool))

    told = site.conditions(3)

    assert {name: value.shape for name, value in told.items()} == {
        "image": (1, 32, 32, 3),
        "label": (1,),
        "scale": (1,),
    }
    assert {name: value.dtype.name for name, value in told.items()} == {
        "image": "uint8",
        "label": "int64",
        "scale": "float32",
    }
    assert told["label"].item() == 3
    assert told["scale"].item() == 1.0


@pytest.mark.parametrize("side_px", [16, 32, 80])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_what_a_generator_answers_comes_at_the_windows_side_and_within_0_to_1(
    side_px: int, channels: tuple[int, ...]
) -> None:
    values = (rng().random((32, 32, *channels)) > 0.5).astype(np.float32)

    enlarged = enlarge(values, side_px)

    assert enlarged.shape == (side_px, side_px, *channels)
    assert enlarged.dtype == np.float32
    assert enlarged.min() >= 0.0
    assert enlarged.max() <= 1.0


def test_enlarging_moves_nothing() -> None:
    rows, columns = np.mgrid[:32, :32] + 0.5
    blob = np.exp(-((columns - 10) ** 2 + (rows - 20) ** 2) / 18).astype(np.float32)

    enlarged = enlarge(blob, 96)

    at = np.mgrid[:96, :96] + 0.5
    centre_y, centre_x = (at * enlarged).sum(axis=(1, 2)) / enlarged.sum()
    assert centre_x == pytest.approx(30, abs=0.1)
    assert centre_y == pytest.approx(60, abs=0.1)


def test_a_box_allows_its_pixels_and_no_other() -> None:
    allowed = allow_box((3, 1, 4, 2), (5, 8))

    assert allowed.sum() == 8
    assert allowed[1:3, 3:7].all()


def test_a_box_may_be_the_whole_picture() -> None:
    assert allow_box((0, 0, 8, 5), (5, 8)).all()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 5), (0, 0, 5, -1), (-1, 0, 3, 3), (0, -1, 3, 3), (5, 0, 4, 1), (0, 3, 1, 3)],
)
def test_a_box_of_nothing_or_beyond_the_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        allow_box(box, (5, 8))

    assert refusal.value.field == "region"


def test_a_mask_is_told_as_0_and_255() -> None:
    assert as_bytes(np.array([[True, False]])).tolist() == [[255, 0]]
