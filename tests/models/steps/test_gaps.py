from __future__ import annotations

import numpy as np
import pytest

from models.arrays import Mask
from models.steps.gaps import bridge_gaps
from models.steps.outlines import find_regions

Box = tuple[int, int, int, int]


def mask_of(*boxes: Box) -> Mask:
    mask = np.zeros((60, 80), bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


def one_label(mask: Mask) -> np.ndarray:
    return mask.astype(np.float32)[None]


@pytest.mark.parametrize(("gap_px", "regions"), [(0, 2), (2, 2), (3, 1), (10, 1)])
def test_parts_are_joined_where_their_gap_is_at_most_that(gap_px: int, regions: int) -> None:
    mask = mask_of((10, 10, 4, 4), (17, 10, 4, 4))

    joined = bridge_gaps(mask, gap_px, one_label(mask))

    assert len(find_regions(joined)) == regions


def test_a_gap_is_measured_as_the_crow_flies() -> None:
    mask = mask_of((10, 10, 4, 4), (17, 17, 4, 4))

    assert len(find_regions(bridge_gaps(mask, 4, one_label(mask)))) == 2
    assert len(find_regions(bridge_gaps(mask, 5, one_label(mask)))) == 1


def test_a_bridge_is_one_pixel_wide_and_nothing_else_changes() -> None:
    mask = mask_of((10, 10, 4, 4), (19, 10, 4, 4))

    joined = bridge_gaps(mask, 5, one_label(mask))

    added = joined & ~mask
    assert added.sum() == 5
    assert not (mask & ~joined).any()


def test_a_slanting_bridge_makes_one_region() -> None:
    mask = mask_of((10, 10, 3, 3), (20, 17, 3, 3))

    (region,) = find_regions(bridge_gaps(mask, 12, one_label(mask)))

    assert region.box == (10, 10, 13, 10)


def test_parts_of_other_labels_stay_apart() -> None:
    mask = mask_of((10, 10, 4, 4), (16, 10, 4, 4), (22, 10, 4, 4))
    scores = np.zeros((2, *mask.shape), np.float32)
    scores[0, :, :15] = scores[1, :, 15:] = 1.0

    regions = find_regions(bridge_gaps(mask, 2, scores))

    assert [region.box for region in regions] == [(10, 10, 4, 4), (16, 10, 10, 4)]


def test_no_bridge_closes_a_ring() -> None:
    corners = [(10, 10, 4, 4), (16, 10, 4, 4), (10, 16, 4, 4), (16, 16, 4, 4)]
    mask = mask_of(*corners)

    (region,) = find_regions(bridge_gaps(mask, 4, one_label(mask)))

    assert region.polygon.holes == ()
    assert region.area_px == 4 * 16 + 3 * 2


def test_a_part_joins_through_another() -> None:
    mask = mask_of(*((5 + 7 * i, 10, 4, 4) for i in range(8)))

    (region,) = find_regions(bridge_gaps(mask, 3, one_label(mask)))

    assert region.box == (5, 10, 53, 4)


def test_a_part_inside_the_hole_of_another_joins_it() -> None:
    mask = mask_of((10, 10, 30, 30))
    mask[14:36, 14:36] = False
    mask[16:30, 16:30] = True

    assert len(find_regions(mask)) == 2
    assert len(find_regions(bridge_gaps(mask, 2, one_label(mask)))) == 1


def test_an_empty_mask_and_the_given_one_stay_as_they_are() -> None:
    empty, mask = mask_of(), mask_of((10, 10, 4, 4), (15, 10, 4, 4))
    before = mask.copy()

    bridge_gaps(mask, 9, one_label(mask))

    assert not bridge_gaps(empty, 9, one_label(empty)).any()
    np.testing.assert_array_equal(mask, before)
