from __future__ import annotations

import numpy as np
import pytest

from models.arrays import Mask
from models.errors import MaskMismatch
from models.steps.checks import (
    MAX_CLIENT_REGIONS,
    MAX_DEFECT_SIDE_PX,
    largest_part,
    objection_to,
    require_client_mask,
)

EVERYWHERE = np.ones((12, 12), bool)
NOWHERE = np.zeros((12, 12), bool)


def box_mask(rows: slice, columns: slice, hw: tuple[int, int] = (12, 12)) -> Mask:
    mask = np.zeros(hw, bool)
    mask[rows, columns] = True
    return mask


def objection(
    mask: Mask, *, allowed: Mask = EVERYWHERE, taken: Mask = NOWHERE, min_area_px: float = 4.0
) -> str | None:
    return objection_to(mask, allowed=allowed, taken=taken, min_area_px=min_area_px)


def test_a_mask_in_free_ground_may_stand() -> None:
    assert objection(box_mask(np.s_[4:6], np.s_[4:6])) is None


def test_a_mask_of_nothing_or_of_less_than_the_least_area_is_empty() -> None:
    assert objection(NOWHERE, min_area_px=0.5) == "empty"
    assert objection(box_mask(np.s_[4:5], np.s_[4:7])) == "empty"


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (np.s_[:3], np.s_[4:6]),
        (np.s_[9:], np.s_[4:6]),
        (np.s_[4:6], np.s_[:3]),
        (np.s_[4:6], np.s_[9:]),
    ],
)
def test_a_mask_that_its_windows_edge_cuts_is_no_whole_mask(rows: slice, columns: slice) -> None:
    assert objection(box_mask(rows, columns)) == "cut"


def test_one_pixel_off_the_object_is_outside() -> None:
    allowed = EVERYWHERE.copy()
    allowed[5, 5] = False

    assert objection(box_mask(np.s_[4:6], np.s_[4:6]), allowed=allowed) == "outside"
    assert objection(box_mask(np.s_[6:8], np.s_[4:6]), allowed=allowed) is None


@pytest.mark.parametrize("corner", [(5, 5), (6, 6), (3, 3), (3, 6), (6, 3), (4, 6)])
def test_a_mask_that_touches_a_defect_even_at_a_corner_overlaps(corner: tuple[int, int]) -> None:
    taken = NOWHERE.copy()
    taken[corner] = True

    assert objection(box_mask(np.s_[4:6], np.s_[4:6]), taken=taken) == "overlap"


@pytest.mark.parametrize("pixel", [(7, 7), (2, 2), (4, 7)])
def test_one_free_pixel_between_two_defects_is_enough(pixel: tuple[int, int]) -> None:
    taken = NOWHERE.copy()
    taken[pixel] = True

    assert objection(box_mask(np.s_[4:6], np.s_[4:6]), taken=taken) is None


def test_of_several_parts_the_largest_is_kept() -> None:
    large = box_mask(np.s_[4:8], np.s_[4:8])
    crumbs = box_mask(np.s_[1:2], np.s_[1:4]) | box_mask(np.s_[8:9], np.s_[8:9])

    np.testing.assert_array_equal(largest_part(large | crumbs), large)


def test_parts_that_meet_at_a_corner_are_two() -> None:
    mask = box_mask(np.s_[4:6], np.s_[4:6]) | box_mask(np.s_[6:7], np.s_[6:7])

    assert largest_part(mask).sum() == 4


def test_nothing_has_no_largest_part() -> None:
    assert not largest_part(NOWHERE).any()


def dots(count: int) -> Mask:
    mask = np.zeros((40, 40), bool)
    mask.reshape(-1)[[80 * (i // 20) + 2 * (i % 20) for i in range(count)]] = True
    return mask


def test_a_clients_mask_of_the_most_regions_is_taken_and_one_of_more_is_refused() -> None:
    require_client_mask(dots(MAX_CLIENT_REGIONS), (40, 40))

    with pytest.raises(MaskMismatch, match="65 4-connected regions; at most 64"):
        require_client_mask(dots(MAX_CLIENT_REGIONS + 1), (40, 40))


def test_a_clients_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(MaskMismatch, match="12 × 10 px, the picture 12 × 12"):
        require_client_mask(np.ones((10, 12), bool), (12, 12))


def test_a_clients_mask_of_nothing_is_refused() -> None:
    with pytest.raises(MaskMismatch, match="empty"):
        require_client_mask(NOWHERE, (12, 12))


def test_a_clients_region_that_is_too_long_or_too_ragged_is_refused() -> None:
    long = np.zeros((4, MAX_DEFECT_SIDE_PX + 1), bool)
    long[1] = True
    ragged = np.ones((1000, 1000), bool)
    ragged[1::2, 1::2] = False

    with pytest.raises(MaskMismatch, match="1025 px on the longest side"):
        require_client_mask(long, (4, MAX_DEFECT_SIDE_PX + 1))
    with pytest.raises(MaskMismatch, match="pixel edges"):
        require_client_mask(ragged, (1000, 1000))
