from __future__ import annotations

import numpy as np
import pytest

from models.steps.crops import (
    Window,
    cut_crop,
    overlapping_groups,
    resize_crop,
    window_around,
)

HW = (60, 100)


def picture(hw: tuple[int, int] = HW) -> np.ndarray:
    """Every pixel tells its row and its column."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return np.dstack([rows, columns, rows + columns]).astype(np.uint8)


def test_a_window_lies_around_its_centre() -> None:
    assert window_around((50.0, 30.0), 20, HW).box == (40, 20, 20, 20)


def test_an_odd_window_around_a_pixels_centre_has_that_pixel_in_its_middle() -> None:
    assert window_around((50.5, 30.5), 21, HW).box == (40, 20, 21, 21)


@pytest.mark.parametrize(
    ("centre", "corner"),
    [
        ((0.5, 30.0), (0, 20)),
        ((99.5, 30.0), (80, 20)),
        ((50.0, 0.5), (40, 0)),
        ((99.5, 59.5), (80, 40)),
    ],
)
def test_a_window_at_the_border_is_shifted_inside(
    centre: tuple[float, float], corner: tuple[int, int]
) -> None:
    window = window_around(centre, 20, HW)

    assert (window.x, window.y) == corner
    assert cut_crop(picture(), window).shape == (20, 20, 3)


def test_a_crop_is_the_pictures_pixels() -> None:
    crop = cut_crop(picture(), Window(40, 20, 16))

    np.testing.assert_array_equal(crop, picture()[20:36, 40:56])


def test_a_picture_smaller_than_its_crop_stands_at_zero_and_repeats_its_far_edge() -> None:
    window = window_around((50.0, 30.0), 80, HW)

    crop = cut_crop(picture(), window)

    assert window.box == (10, 0, 80, 80)
    assert window.slices_in(HW) == (slice(0, 60), slice(10, 90))
    np.testing.assert_array_equal(crop[:60], picture()[:, 10:90])
    np.testing.assert_array_equal(crop[60:], np.repeat(picture()[59:, 10:90], 20, axis=0))


def test_a_grey_picture_is_cut_and_repeated_too() -> None:
    crop = cut_crop(picture((4, 5))[..., 1], Window(0, 0, 8))

    assert crop[7].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]


def test_a_crop_of_the_right_side_is_not_resized() -> None:
    crop = cut_crop(picture(), Window(0, 0, 32))

    assert resize_crop(crop, 32) is crop


@pytest.mark.parametrize("side_px", [16, 64])
def test_resizing_moves_nothing(side_px: int) -> None:
    crop = cut_crop(picture(), Window(0, 0, 32))

    resized = resize_crop(crop, side_px).astype(float)

    centres = (np.arange(side_px) + 0.5) * 32 / side_px - 0.5
    np.testing.assert_allclose(resized[side_px // 2, :, 1], centres.clip(0, 31), atol=0.51)


def test_windows_that_overlap_or_touch_are_one_group_directly_or_through_others() -> None:
    windows = [
        Window(0, 0, 10),
        Window(50, 0, 10),
        Window(20, 0, 10),  # touches neither of the first two
        Window(10, 5, 10),  # touches the first and the third
        Window(61, 0, 10),  # one pixel beside the second
        Window(60, 10, 10),  # a corner of the second, and an edge of the fifth
    ]

    assert overlapping_groups(windows) == [[0, 2, 3], [1, 4, 5]]


def test_windows_of_different_sides_are_compared_by_their_edges() -> None:
    apart = [Window(0, 0, 10), Window(11, 0, 30)]
    touching = [Window(0, 0, 10), Window(10, 0, 30)]

    assert overlapping_groups(apart) == [[0], [1]]
    assert overlapping_groups(touching) == [[0, 1]]


def test_no_windows_make_no_groups() -> None:
    assert overlapping_groups([]) == []


def test_a_window_shows_the_points_from_its_first_edge_to_before_its_last() -> None:
    window = Window(10, 20, 8)

    assert window.shows((10.0, 20.0))
    assert window.shows((17.9, 27.9))
    assert not window.shows((18.0, 24.0))
    assert not window.shows((12.0, 19.9))
