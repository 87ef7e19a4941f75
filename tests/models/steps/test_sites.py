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
    conditions_of,
    cut_site,
    draw_defect_side_px,
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


def test_generators_are_told_of_several_sites_at_once() -> None:
    sites = [
        Site(
            Window(0, 0, side_px), np.full((32, 32, 3), side_px, np.uint8), np.ones((32, 32), bool)
        )
        for side_px in (64, 16, 32)
    ]

    told = conditions_of(sites, [3, 0, 1])

    assert {name: (value.shape, value.dtype.name) for name, value in told.items()} == {
        "image": ((3, 32, 32, 3), "uint8"),
        "label": ((3,), "int64"),
        "scale": ((3,), "float32"),
    }
    assert told["label"].tolist() == [3, 0, 1]
    assert told["scale"].tolist() == [1.0, -1.0, 0.0]
    assert told["image"][:, 0, 0, 0].tolist() == [64, 16, 32]


REAL_PX = (10.0, 20.0, 40.0)


def test_a_range_cuts_the_real_sizes() -> None:
    free = [draw_defect_side_px(REAL_PX, rng(seed)) for seed in range(2000)]
    asked = [draw_defect_side_px(REAL_PX, rng(seed), (15, 30)) for seed in range(2000)]

    assert set(asked) == {float(side) for side in range(15, 31)}
    expected = np.median([side for side in free if 15 <= side <= 30])
    assert np.median(asked) == pytest.approx(expected, abs=1)


def test_a_range_that_reaches_beyond_the_real_sizes_ends_with_them() -> None:
    asked = [draw_defect_side_px(REAL_PX, rng(seed), (30, 400)) for seed in range(300)]

    assert (min(asked), max(asked)) == (30, 40)


@pytest.mark.parametrize("within_px", [(50, 90), (2, 6), (100, 100), (20, 20)])
def test_a_range_that_holds_no_real_size_is_drawn_from_evenly(within_px: tuple[int, int]) -> None:
    asked = [draw_defect_side_px(REAL_PX, rng(seed), within_px) for seed in range(800)]

    assert (min(asked), max(asked)) == within_px
    assert np.mean(asked) == pytest.approx(np.mean(within_px), abs=2)


def test_defects_that_were_all_of_one_size_still_follow_a_range() -> None:
    equal = (18.0,) * 11

    assert {draw_defect_side_px(equal, rng(seed), (10, 30)) for seed in range(50)} == {18.0}
    assert {draw_defect_side_px(equal, rng(seed), (40, 41)) for seed in range(50)} == {40.0, 41.0}


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
