from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.steps.crops import Window
from models.steps.mosaics import Mosaic, lay_mosaics
from models.steps.outlines import Region, find_regions

HW = (40, 60)


def scores_with(defect: tuple[slice, slice], side_px: int = 16) -> np.ndarray:
    """(2, side, side): 0.9 defect there, 0.1 elsewhere."""
    foreground = np.full((side_px, side_px), 0.1, np.float32)
    foreground[defect] = 0.9
    return np.stack([1 - foreground, foreground])


def regions_of(mosaic: Mosaic) -> list[Region]:
    return find_regions(mosaic.scores[1] > 0.5, offset_xy=(mosaic.x, mosaic.y))


def region_in(x: int, y: int, width: int, height: int) -> Region:
    mask = np.zeros(HW, bool)
    mask[y : y + height, x : x + width] = True
    (region,) = find_regions(mask)
    return region


def test_windows_apart_are_mosaics_apart() -> None:
    windows = [Window(0, 0, 16), Window(30, 20, 16)]
    scores = np.stack([scores_with(np.s_[2:4, 2:4]), scores_with(np.s_[5:9, 5:9])])

    first, second = lay_mosaics(windows, scores, HW)

    assert (first.x, first.y, second.x, second.y) == (0, 0, 30, 20)
    np.testing.assert_allclose(first.scores, scores[0], rtol=1e-6)
    np.testing.assert_allclose(second.scores, scores[1], rtol=1e-6)
    assert [region.box for region in regions_of(second)] == [(35, 25, 4, 4)]


def test_a_defect_that_two_windows_see_half_of_is_one_region() -> None:
    windows = [Window(10, 10, 16), Window(20, 10, 16)]
    scores = np.stack([scores_with(np.s_[6:9, 8:16]), scores_with(np.s_[6:9, 0:10])])

    (mosaic,) = lay_mosaics(windows, scores, HW)

    assert mosaic.scores.shape == (2, 16, 26)
    assert [region.box for region in regions_of(mosaic)] == [(18, 16, 12, 3)]


def test_where_windows_disagree_the_one_that_sees_more_weighs_more() -> None:
    windows = [Window(0, 0, 16), Window(8, 0, 16)]
    scores = np.stack([scores_with(np.s_[:, :]), scores_with(np.s_[:0, :0])])

    (mosaic,) = lay_mosaics(windows, scores, HW)

    across = mosaic.scores[1, 8]
    assert across[9] > 0.5 > across[14]
    assert (np.diff(across[8:16]) < 0).all()
    np.testing.assert_allclose(mosaic.scores.sum(axis=0), 1, rtol=1e-6)


def test_where_no_window_looked_there_is_background() -> None:
    windows = [Window(0, 0, 16), Window(16, 16, 16)]
    scores = np.stack([scores_with(np.s_[:, :])] * 2)

    (mosaic,) = lay_mosaics(windows, scores, HW)

    assert (mosaic.scores[0, :16, 16:] == 1).all()
    assert (mosaic.scores[1, :16, 16:] == 0).all()


@pytest.mark.parametrize(
    ("box", "goes_on"),
    [
        ((12, 12, 4, 4), False),
        ((10, 12, 4, 4), True),
        ((12, 10, 4, 4), True),
        ((22, 12, 4, 4), True),
        ((12, 22, 4, 4), True),
    ],
)
def test_a_region_at_the_inner_edge_of_a_window_goes_on_unseen(
    box: tuple[int, int, int, int], goes_on: bool
) -> None:
    (mosaic,) = lay_mosaics([Window(10, 10, 16)], scores_with(np.s_[:0, :0])[None], HW)

    assert mosaic.goes_on_unseen(region_in(*box)) is goes_on


@pytest.mark.parametrize(
    ("corner", "box"),
    [
        ((0, 0), (0, 0, 4, 4)),
        ((44, 0), (56, 0, 4, 4)),
        ((0, 24), (0, 36, 4, 4)),
        ((44, 24), (56, 36, 4, 4)),
    ],
)
def test_at_the_pictures_own_edge_nothing_goes_on(
    corner: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    window = Window(*corner, 16)

    (mosaic,) = lay_mosaics([window], scores_with(np.s_[:0, :0])[None], HW)

    assert not mosaic.goes_on_unseen(region_in(*box))


def test_a_region_at_the_edge_of_a_window_that_its_neighbour_covers_does_not_go_on() -> None:
    windows = [Window(10, 10, 16), Window(20, 10, 16)]

    (mosaic,) = lay_mosaics(windows, np.stack([scores_with(np.s_[:0, :0])] * 2), HW)

    assert not mosaic.goes_on_unseen(region_in(22, 14, 4, 4))


def test_a_region_in_the_notch_between_windows_goes_on() -> None:
    windows = [Window(0, 0, 16), Window(8, 16, 16)]

    (mosaic,) = lay_mosaics(windows, np.stack([scores_with(np.s_[:0, :0])] * 2), HW)

    assert mosaic.goes_on_unseen(region_in(12, 4, 4, 8))
    assert mosaic.goes_on_unseen(region_in(2, 12, 4, 4))
    assert not mosaic.goes_on_unseen(region_in(10, 12, 4, 8))


def test_what_a_window_says_beyond_a_small_pictures_edge_is_dropped() -> None:
    (mosaic,) = lay_mosaics([Window(0, 0, 64)], scores_with(np.s_[:, :], 64)[None], HW)

    assert mosaic.scores.shape == (2, *HW)
    assert [region.box for region in regions_of(mosaic)] == [(0, 0, 60, 40)]
    assert not mosaic.goes_on_unseen(region_in(0, 0, 60, 40))


def test_the_scores_in_a_region_are_those_of_its_pixels() -> None:
    (mosaic,) = lay_mosaics([Window(10, 10, 16)], scores_with(np.s_[2:4, 3:6])[None], HW)

    (region,) = regions_of(mosaic)
    scores = mosaic.scores_in(region)

    assert scores.shape == (2, 6)
    np.testing.assert_allclose(scores, [[0.1] * 6, [0.9] * 6], rtol=1e-5)


def exits_of(*box: int) -> set[tuple[float, float]]:
    """Of a region in a window from 10 to 26 on both axes."""
    (mosaic,) = lay_mosaics([Window(10, 10, 16)], scores_with(np.s_[:0, :0])[None], HW)
    return set(mosaic.exits(region_in(*box)))


def test_a_region_leaves_its_window_in_the_middle_of_where_it_touches_the_unseen() -> None:
    assert exits_of(22, 14, 4, 3) == {(26.5, 15.5)}
    assert exits_of(10, 14, 4, 3) == {(9.5, 15.5)}
    assert exits_of(14, 10, 3, 4) == {(15.5, 9.5)}
    assert exits_of(14, 22, 3, 4) == {(15.5, 26.5)}
    assert exits_of(14, 14, 4, 4) == set()


def test_a_region_that_fills_its_window_leaves_it_on_four_sides_each_outside() -> None:
    exits = exits_of(10, 10, 16, 16)

    assert len(exits) == 4
    assert not any(Window(10, 10, 16).shows(at) for at in exits)


def test_the_widest_way_out_comes_first() -> None:
    mask = np.zeros(HW, bool)
    mask[12:14, 10:26] = mask[12:20, 24:26] = True
    (region,) = find_regions(mask)
    (mosaic,) = lay_mosaics([Window(10, 10, 16)], scores_with(np.s_[:0, :0])[None], HW)

    assert [x for x, _ in mosaic.exits(region)] == [26.5, 9.5]


def test_scores_in_half_precision_are_read_as_well() -> None:
    (mosaic,) = lay_mosaics([Window(10, 10, 16)], scores_with(np.s_[2:4, 3:6])[None], HW)
    half = replace(mosaic, scores=mosaic.scores.astype(np.float16))

    scores = half.scores_in(regions_of(mosaic)[0])

    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[1], 0.9, atol=1e-3)
