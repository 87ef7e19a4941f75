from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import Mask
from models.steps.extents import LARGEST_PX, longest_path, measure_extent, thin


def turned_bar(length_px: int, width_px: int, angle_deg: float) -> Mask:
    """A bar in its own box, drawn eight times as large and brought down again."""
    side, zoom = length_px + width_px + 20, 8
    middle = (side * zoom / 2, side * zoom / 2)
    corners = cv2.boxPoints((middle, (length_px * zoom, width_px * zoom), angle_deg))
    drawn = cv2.fillPoly(np.zeros((side * zoom, side * zoom), np.uint8), [np.int32(corners)], 255)
    return in_its_box(cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA) > 127)


def in_its_box(mask: Mask) -> Mask:
    y, x = np.nonzero(mask)
    return np.ascontiguousarray(mask[y.min() : y.max() + 1, x.min() : x.max() + 1])


def distances(radius_px: int) -> np.ndarray:
    """Of each pixel to the middle of a square that a ring of that radius fits into."""
    across = np.arange(2 * radius_px + 60) + 0.5 - radius_px - 30
    return np.hypot(across[:, None], across[None, :])


def ring(radius_px: int, width_px: int) -> Mask:
    return np.asarray(np.abs(distances(radius_px) - radius_px) <= width_px / 2)


def disc(diameter_px: int) -> Mask:
    return in_its_box(distances(diameter_px) <= diameter_px / 2)


def parts_of(mask: Mask) -> int:
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1


@pytest.mark.parametrize("angle_deg", [0, 10, 22.5, 30, 45, 70, 90])
@pytest.mark.parametrize(("length_px", "width_px"), [(60, 8), (100, 3), (200, 2), (150, 12)])
def test_a_crack_is_as_long_and_as_wide_as_it_was_drawn_in_any_direction(
    length_px: int, width_px: int, angle_deg: float
) -> None:
    extent = measure_extent(turned_bar(length_px, width_px, angle_deg))

    assert extent.length_px == pytest.approx(length_px, rel=0.05)
    assert extent.width_px == pytest.approx(width_px, abs=0.7)
    assert extent.mean_width_px == pytest.approx(width_px, rel=0.2)


@pytest.mark.parametrize(("width_px", "length_px"), [(1, 9), (2, 9), (3, 40), (4, 40), (7, 100)])
def test_a_straight_bar_is_measured_to_the_pixel(width_px: int, length_px: int) -> None:
    extent = measure_extent(np.ones((width_px, length_px), bool))

    assert extent.width_px == width_px
    assert extent.length_px == pytest.approx(length_px, abs=1.0)


@pytest.mark.parametrize(("radius_px", "width_px"), [(50, 3), (80, 6), (90, 10)])
def test_a_bent_crack_is_measured_along_its_bend(radius_px: int, width_px: int) -> None:
    half = in_its_box(ring(radius_px, width_px)[: radius_px + 30])

    extent = measure_extent(half)

    assert extent.length_px == pytest.approx(np.pi * radius_px, rel=0.03)
    assert extent.mean_width_px == pytest.approx(width_px, rel=0.05)


def test_a_closed_ring_is_half_its_way_round_long() -> None:
    extent = measure_extent(in_its_box(ring(60, 4)))

    assert extent.length_px == pytest.approx(np.pi * 60, rel=0.05)


@pytest.mark.parametrize("diameter_px", [10, 31, 64, 200, 500])
def test_a_disc_is_as_long_and_as_wide_as_its_diameter(diameter_px: int) -> None:
    extent = measure_extent(disc(diameter_px))

    assert extent.width_px == pytest.approx(diameter_px, rel=0.03, abs=1.5)
    assert extent.length_px == pytest.approx(diameter_px, rel=0.05, abs=1.5)


@pytest.mark.parametrize("side_px", [1, 2, 3, 4, 10, 50, 200])
def test_a_square_is_as_wide_as_its_side_and_never_longer_than_its_diagonal(side_px: int) -> None:
    extent = measure_extent(np.ones((side_px, side_px), bool))

    assert extent.width_px == pytest.approx(side_px)
    assert side_px <= extent.length_px <= 1.42 * side_px


def test_the_width_is_that_of_the_widest_place_and_the_mean_that_of_most() -> None:
    widest = disc(21)
    crack = np.zeros((len(widest), 200), bool)
    crack[9:12] = True
    crack[:, 90 : 90 + len(widest)] |= widest

    extent = measure_extent(crack)

    assert extent.width_px == pytest.approx(21, abs=1.5)
    assert extent.mean_width_px == pytest.approx(crack.sum() / 200, rel=0.05)


def test_of_a_branched_crack_the_longest_way_counts() -> None:
    branched = np.zeros((100, 121), bool)
    branched[59:61] = True
    branched[:60, 60:62] = True

    assert measure_extent(branched).length_px == pytest.approx(121, rel=0.03)


def test_a_box_beyond_the_largest_is_measured_in_coarser_steps() -> None:
    huge = np.zeros((900, 1500), bool)
    huge[440:460] = True
    cut = huge[430:470]

    extent, exact = measure_extent(huge), measure_extent(cut)

    assert huge.size > LARGEST_PX > cut.size
    assert extent.length_px == pytest.approx(exact.length_px, rel=0.01)
    assert extent.width_px == pytest.approx(exact.width_px, abs=2.0)


@pytest.mark.parametrize("seed", range(20))
def test_a_skeleton_hangs_together_as_its_region_does_and_lies_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((60, 70)).astype(np.float32), (0, 0), 1 + seed % 5)
    mask = np.asarray(noise > np.median(noise))

    skeleton = thin(mask)

    assert parts_of(skeleton) == parts_of(mask)
    assert not (skeleton & ~mask).any()
    assert skeleton.sum() < mask.sum()


def test_a_skeleton_of_a_line_is_the_line() -> None:
    line = np.zeros((5, 30), bool)
    line[2, 3:27] = True

    np.testing.assert_array_equal(thin(line), line)


def test_the_longest_path_goes_from_end_to_end() -> None:
    bent = np.zeros((20, 20), bool)
    bent[3, 3:15] = bent[3:18, 14] = True

    path = longest_path(bent)

    ends = {tuple(path[0].tolist()), tuple(path[-1].tolist())}
    assert ends == {(3.0, 3.0), (17.0, 14.0)}
    assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()
