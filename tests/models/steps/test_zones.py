from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from models.inspection import Zone, Zones
from models.steps.outlines import Region, find_regions
from models.steps.zones import Scope, is_everywhere, needs_object, shrink_for_object

HW = (100, 200)
Kind = Literal["picture", "object", "px"]


def box(x: float, y: float, right: float, bottom: float, frame: Kind = "picture") -> Zone:
    return Zone(points=((x, y), (right, y), (right, bottom), (x, bottom)), frame=frame)


def region_in(x: int, y: int, width: int, height: int) -> Region:
    (region,) = find_regions(np.ones((height, width), bool), offset_xy=(x, y))
    return region


def object_in(hw: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(hw, bool)
    mask[rows, columns] = True
    return mask


def test_a_zone_in_shares_grows_with_the_picture() -> None:
    zones = Zones(look=(box(0.25, 0.5, 0.75, 1.0),))

    for hw in (HW, (50, 60), (301, 499)):
        inside = Scope(zones, hw).mask(hw)
        assert inside.mean() == pytest.approx(0.25, abs=0.01)
        assert inside[-1, hw[1] // 2]
        assert not inside[0, 0]


def test_a_zone_in_pixels_is_exactly_those_pixels() -> None:
    inside = Scope(Zones(look=(box(10, 20, 30, 25, "px"),)), HW).mask(HW)

    expected = np.zeros(HW, bool)
    expected[20:25, 10:30] = True
    np.testing.assert_array_equal(inside, expected)


def test_a_zone_of_the_object_lies_in_the_objects_box() -> None:
    half_size = object_in((50, 100), slice(10, 40), slice(20, 80))
    zones = Zones(look=(box(0, 0, 0.5, 1, "object"),))

    inside = Scope(zones, HW, half_size).mask(HW)

    y, x = np.nonzero(inside)
    assert (x.min(), x.max(), y.min(), y.max()) == (40, 99, 20, 79)


def test_on_the_object_is_where_the_object_is() -> None:
    half_size = object_in((50, 100), slice(10, 40), slice(20, 80))

    inside = Scope(Zones(on_object=True), HW, half_size).mask(HW)

    np.testing.assert_array_equal(inside, half_size.repeat(2, axis=0).repeat(2, axis=1))


def test_what_is_to_be_ignored_is_taken_away_and_zones_to_look_at_add_up() -> None:
    zones = Zones(look=(box(0, 0, 0.5, 1), box(0.25, 0, 0.75, 1)), ignore=(box(0.4, 0, 0.5, 1),))

    row = Scope(zones, HW).mask(HW)[50]

    assert row[:80].all()
    assert not row[80:100].any()
    assert row[100:150].all()
    assert not row[150:].any()


def test_a_part_of_the_mask_is_that_part_of_the_whole() -> None:
    triangle = Zone(points=((0.1, 0.1), (0.9, 0.2), (0.3, 0.8)))
    scope = Scope(
        Zones(look=(triangle,), ignore=(box(0.3, 0.3, 0.4, 0.4),), on_object=True),
        HW,
        object_in((33, 77), slice(3, 30), slice(5, 60)),
    )

    part = scope.mask((40, 70), offset_xy=(35, 15))

    np.testing.assert_array_equal(part, scope.mask(HW)[15:55, 35:105])


def test_a_region_counts_where_the_least_share_of_it_lies_inside() -> None:
    half, any_part = (
        Scope(Zones(look=(box(0, 0, 100, 100, "px"),), least_share=share), HW)
        for share in (0.5, 0.0)
    )

    assert half.holds(region_in(95, 10, 10, 4))
    assert not half.holds(region_in(96, 10, 10, 4))
    assert any_part.holds(region_in(99, 10, 10, 4))
    assert not any_part.holds(region_in(100, 10, 10, 4))


def test_a_cell_is_looked_at_where_it_or_a_neighbour_has_its_centre_inside() -> None:
    cells = Scope(Zones(look=(box(40, 40, 80, 56, "px"),)), HW).cells((13, 25), 8)

    rows, columns = np.nonzero(cells)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 4, 10)


def test_only_zones_that_speak_of_the_object_need_it() -> None:
    assert not needs_object(Zones())
    assert not needs_object(Zones(look=(box(0, 0, 1, 1),)))
    assert needs_object(Zones(on_object=True))
    assert needs_object(Zones(ignore=(box(0, 0, 1, 1, "object"),)))


def test_no_zones_leave_nothing_out() -> None:
    assert is_everywhere(Zones())
    assert Scope(Zones(), HW).mask(HW).all()
    assert not is_everywhere(Zones(ignore=(box(0, 0, 1, 1),)))


def test_a_picture_is_shrunk_to_where_objects_are_found_and_a_small_one_is_not() -> None:
    large, small = np.zeros((1000, 2048, 3), np.uint8), np.zeros((100, 200, 3), np.uint8)

    assert shrink_for_object(large).shape == (250, 512, 3)
    assert shrink_for_object(small) is small


def test_a_polygon_far_out_of_the_picture_is_cut_off() -> None:
    zones = Zones(look=(box(-1e6, -1e6, 1e6, 0.5),))

    inside = Scope(zones, HW).mask(HW)

    assert inside[:50].all()
    assert not inside[50:].any()
