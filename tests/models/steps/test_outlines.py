from __future__ import annotations

import time

import numpy as np
import pytest
from shapely import MultiPoint
from shapely import Polygon as OgcPolygon

from models.arrays import Mask, Points
from models.steps.outlines import (
    Polygon,
    bridge_diagonals,
    fill_polygon,
    find_regions,
    place_region,
    smallest_rectangle,
    trace_polygon,
)


def as_mask(*rows: str) -> Mask:
    return np.array([[cell == "#" for cell in row] for row in rows])


def random_mask(seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 16, 2)
    mask: Mask = rng.random((height, width)) < rng.uniform(0.2, 0.95)
    return mask


def as_ogc(polygon: Polygon) -> OgcPolygon:
    return OgcPolygon(polygon.exterior, polygon.holes)


def signed_area(ring: Points) -> float:
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    return float((x * next_y - next_x * y).sum() / 2)


def test_one_pixel_is_a_unit_square_clockwise_on_screen() -> None:
    polygon = trace_polygon(as_mask("...", "..#"))

    assert polygon.exterior.tolist() == [[2, 1], [3, 1], [3, 2], [2, 2]]
    assert polygon.holes == ()


def test_only_corners_are_kept() -> None:
    polygon = trace_polygon(as_mask("####", "####", "##.."))

    assert polygon.exterior.tolist() == [[0, 0], [4, 0], [4, 2], [2, 2], [2, 3], [0, 3]]


def test_a_hole_runs_against_the_exterior() -> None:
    polygon = trace_polygon(as_mask("###", "#.#", "###"))

    (hole,) = polygon.holes
    assert signed_area(polygon.exterior) == 9
    assert signed_area(hole) == -1


def test_holes_that_meet_in_a_corner_are_two() -> None:
    polygon = trace_polygon(as_mask("####", "#.##", "##.#", "####"))

    assert sorted(signed_area(hole) for hole in polygon.holes) == [-1, -1]
    assert as_ogc(polygon).is_valid


@pytest.mark.parametrize(
    "mask",
    [as_mask(".###", "##.#", "#..#", "####"), as_mask("###.", "#.##", "#..#", "####")],
    ids=["upper_left", "upper_right"],
)
def test_a_hole_that_meets_the_outside_in_a_corner_stays_a_hole(mask: Mask) -> None:
    polygon = trace_polygon(mask)

    assert len(polygon.holes) == 1
    assert as_ogc(polygon).is_valid
    assert as_ogc(polygon).area == mask.sum()


@pytest.mark.parametrize("seed", range(300))
def test_polygons_are_valid_have_the_exact_area_and_fill_back(seed: int) -> None:
    mask = random_mask(seed)

    for region in find_regions(mask):
        traced = trace_polygon(region.mask)
        rings = (traced.exterior, *traced.holes)
        assert as_ogc(traced).is_valid
        assert sum(signed_area(ring) for ring in rings) == region.area_px == region.mask.sum()
        np.testing.assert_array_equal(fill_polygon(traced, region.mask.shape), region.mask)


@pytest.mark.parametrize("seed", range(50))
def test_regions_fill_back_to_the_whole_mask_in_raster_order(seed: int) -> None:
    mask = random_mask(seed)

    regions = find_regions(mask)

    filled = [fill_polygon(region.polygon, mask.shape) for region in regions]
    np.testing.assert_array_equal(np.sum([np.zeros(mask.shape), *filled], axis=0), mask)
    firsts = [int(np.flatnonzero(one)[0]) for one in filled]
    assert firsts == sorted(firsts)


def test_pixels_that_meet_in_a_corner_are_two_regions() -> None:
    assert [region.box for region in find_regions(as_mask(".#", "#."))] == [
        (1, 0, 1, 1),
        (0, 1, 1, 1),
    ]


def test_a_region_is_measured_in_the_frame() -> None:
    mask = as_mask("......", "..###.", "..#...")

    (region,) = find_regions(mask, offset_xy=(100, 50))

    assert region.box == (102, 51, 3, 2)
    assert region.mask.tolist() == [[True, True, True], [True, False, False]]
    assert region.area_px == 4
    assert region.centroid_xy == (103.25, 51.75)
    assert region.polygon.exterior.min(axis=0).tolist() == [102, 51]
    assert region.min_area_rect.center_xy == pytest.approx((103.5, 52.0))


def test_an_empty_mask_has_no_regions() -> None:
    assert find_regions(np.zeros((4, 5), np.bool_)) == []


@pytest.mark.parametrize("mask", [as_mask("..", ".."), as_mask(".#", "#."), as_mask("#.#")])
def test_only_one_region_is_traced(mask: Mask) -> None:
    with pytest.raises(ValueError, match="one region"):
        trace_polygon(mask)


def test_any_polygon_is_filled_by_its_pixel_centres_and_cut_at_the_frame() -> None:
    corners = np.array([[-3.2, 1.1], [6.4, -2.0], [11.7, 9.3], [2.5, 5.9]])

    filled = fill_polygon(Polygon(corners), (7, 9))

    ogc = OgcPolygon(corners)
    centres = [[ogc.contains(MultiPoint([(x + 0.5, y + 0.5)])) for x in range(9)] for y in range(7)]
    np.testing.assert_array_equal(filled, centres)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 71.5, 90.0, 135.0, 179.0])
def test_the_smallest_rectangle_tells_the_long_sides_angle(angle_deg: float) -> None:
    turn = np.deg2rad(angle_deg)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    corners = [(20, 4), (-20, 4), (-20, -4), (20, -4)]
    exterior = np.array([5000, 300]) + [a * along + b * across for a, b in corners]

    rectangle = smallest_rectangle(Polygon(exterior))

    assert rectangle.center_xy == pytest.approx((5000, 300), abs=1e-3)
    assert rectangle.size_px == pytest.approx((40, 8), abs=1e-3)
    gap_deg = (rectangle.angle_deg - angle_deg + 90) % 180 - 90
    assert gap_deg == pytest.approx(0, abs=1e-2)
    assert 0 <= rectangle.angle_deg < 180


def test_a_ragged_border_of_ten_thousand_edges_is_traced_quickly() -> None:
    mask = np.random.default_rng(1).random((115, 115)) < 0.75
    region = max(find_regions(mask), key=lambda region: region.area_px)
    rings = [region.polygon.exterior, *region.polygon.holes]
    edges = sum(np.abs(ring - np.roll(ring, -1, axis=0)).sum() for ring in rings)
    took_s = []

    for _ in range(5):
        start_s = time.perf_counter()
        trace_polygon(region.mask)
        took_s.append(time.perf_counter() - start_s)

    assert edges > 9_000
    assert min(took_s) < 0.1


def test_what_touches_by_a_corner_is_bridged_into_one_region():
    line = np.eye(9, dtype=bool) | np.eye(9, dtype=bool)[::-1]

    bridged = bridge_diagonals(line)

    assert len(find_regions(line)) > 1
    assert len(find_regions(bridged)) == 1
    assert bridged[line].all()


def test_a_mask_without_corners_that_touch_is_left_alone():
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:6] = True
    mask[6:, 6:] = True

    assert np.array_equal(bridge_diagonals(mask), mask)


@pytest.mark.parametrize("offset_xy", [(0, 0), (3, 2), (-2, -3), (6, 5), (7, 0), (40, 40)])
def test_a_region_is_placed_where_a_canvas_sees_it(offset_xy: tuple[int, int]) -> None:
    frame = np.zeros((20, 20), bool)
    frame[4:8, 3:9] = as_mask("######", "#..#.#", "#..###", "####..")
    (region,) = find_regions(frame)

    placed = place_region(region, offset_xy, (7, 8))

    x, y = offset_xy
    seen = np.pad(frame, 50)[50 + y : 57 + y, 50 + x : 58 + x]
    np.testing.assert_array_equal(placed, seen)
