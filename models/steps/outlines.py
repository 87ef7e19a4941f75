"""Mask -> polygons with holes along pixel edges, their measures, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Points


@dataclass(frozen=True)
class Polygon:
    """A region's border along pixel edges; the first vertex is not repeated at a ring's end.

    On screen (x right, y down) the exterior runs clockwise and the holes counter-clockwise: the
    region is always on the right. Every vertex is a corner. Rings may touch in a corner, but
    none touches itself, so the polygon is valid by the rules of OGC Simple Features.
    """

    exterior: Points
    holes: tuple[Points, ...] = ()


@dataclass(frozen=True)
class MinAreaRect:
    """The smallest rectangle around a region, turned as it needs.

    Units: size_px (long, short); angle_deg of the long side, 0 <= angle < 180, from x towards y.
    """

    center_xy: tuple[float, float]
    size_px: tuple[float, float]
    angle_deg: float


@dataclass(frozen=True)
class Region:
    """One 4-connected region of a mask. `mask` covers its box; all else is in the frame."""

    mask: Mask
    x: int
    y: int
    polygon: Polygon
    area_px: float
    centroid_xy: tuple[float, float]
    min_area_rect: MinAreaRect

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) in the frame."""
        height, width = self.mask.shape
        return self.x, self.y, width, height


def find_regions(mask: Mask, *, offset_xy: tuple[int, int] = (0, 0)) -> list[Region]:
    """Split a mask into its 4-connected regions, in raster order of their first pixels.

    offset_xy is where the mask's top left corner lies in the frame.
    """
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    regions = []
    for label in range(1, len(stats)):
        x, y, width, height = (int(value) for value in stats[label, :4])
        of_box = labels[y : y + height, x : x + width] == label
        frame_xy = (x + offset_xy[0], y + offset_xy[1])
        centroid_xy = centroids[label] + 0.5 + offset_xy
        regions.append(_measure_region(of_box, frame_xy, centroid_xy))
    return sorted(regions, key=lambda region: (region.y, region.x + int(region.mask[0].argmax())))


def _measure_region(mask: Mask, frame_xy: tuple[int, int], centroid_xy: Points) -> Region:
    exterior, *holes = (ring + np.array(frame_xy, np.float64) for ring in _trace_rings(mask))
    polygon = Polygon(exterior, tuple(holes))
    return Region(
        mask=mask,
        x=frame_xy[0],
        y=frame_xy[1],
        polygon=polygon,
        area_px=float(np.count_nonzero(mask)),
        centroid_xy=(float(centroid_xy[0]), float(centroid_xy[1])),
        min_area_rect=smallest_rectangle(polygon),
    )


def place_region(region: Region, offset_xy: tuple[int, int], hw: tuple[int, int]) -> Mask:
    """The region's pixels in a canvas whose top left corner lies there in the frame.

    What lies outside the canvas is cut off.
    """
    canvas = np.zeros(hw, bool)
    x, y = region.x - offset_xy[0], region.y - offset_xy[1]
    height, width = region.mask.shape
    rows, columns = slice(max(0, y), max(0, y + height)), slice(max(0, x), max(0, x + width))
    there = canvas[rows, columns]
    top, left = max(0, -y), max(0, -x)
    there[...] = region.mask[top : top + there.shape[0], left : left + there.shape[1]]
    return canvas


def bridge_diagonals(mask: Mask) -> Mask:
    """A mask in which nothing hangs together by a corner alone: a pixel is added at each.

    A thin slanting scratch stays one region this way, and its polygon stays valid.
    """
    bridged = np.array(mask)
    while True:
        upper, lower = bridged[:-1], bridged[1:]
        falling = upper[:, :-1] & lower[:, 1:] & ~upper[:, 1:] & ~lower[:, :-1]
        rising = upper[:, 1:] & lower[:, :-1] & ~upper[:, :-1] & ~lower[:, 1:]
        if not (falling.any() or rising.any()):
            return bridged
        upper[:, 1:] |= falling
        upper[:, :-1] |= rising


def trace_polygon(mask: Mask) -> Polygon:
    """Trace one region's border along its pixel edges.

    Errors: ValueError when the mask is not one 4-connected region.
    """
    region_count = cv2.connectedComponents(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )[0]
    if region_count != 2:
        raise ValueError(f"a mask of one region is traced, not of {region_count - 1}")
    exterior, *holes = _trace_rings(mask)
    return Polygon(exterior, tuple(holes))


def _trace_rings(mask: Mask) -> list[Points]:
    """The rings of one region, exterior first: it owns the first corner in raster order.

    Where four pixels meet and two opposite ones are set, the border passes twice. Each pass stays
    with one of the two unset pixels. That splits backgrounds that touch only there into rings of
    their own; a pass that stayed with the set pixels would weld them into a ring that touches
    itself. (One unset part cannot hold both unset pixels: its path between them would cut the two
    set pixels apart, yet the region is connected.)
    """
    corners_xy, follower = _link_corners(np.pad(mask, 1))
    rings: list[Points] = []
    is_seen = bytearray(len(follower))
    for start in range(len(follower)):
        if is_seen[start]:
            continue
        ring = []
        corner = start
        while not is_seen[corner]:
            is_seen[corner] = 1
            ring.append(corner)
            corner = follower[corner]
        rings.append(corners_xy[ring])
    return rings


def _link_corners(padded: Mask) -> tuple[Points, list[int]]:
    """All corners of the border in raster order, and for each the one that comes next.

    Between corners the border runs straight, so the corners on one grid line pair up, first with
    second, third with fourth. A corner passed twice counts twice.
    """
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    is_odd = above_left ^ above_right ^ below_left ^ below_right
    is_double = (above_left == below_right) & (above_right == below_left)
    is_double &= above_left != above_right
    y, x = np.nonzero(is_odd | is_double)
    doubles = np.flatnonzero(is_double[y, x])
    copied = np.insert(np.arange(len(y)), doubles, doubles)
    y, x = y[copied], x[copied]

    # the first of two copies holds the edge upwards, the second the edge downwards
    goes_down = below_left[y, x] != below_right[y, x]
    goes_right = above_right[y, x] != below_right[y, x]
    first = doubles + np.arange(len(doubles))
    goes_down[first] = False
    goes_right[first] = above_left[y, x][first]
    goes_right[first + 1] = above_right[y, x][first + 1]

    follower = np.empty(len(y), np.intp)
    _link_runs(follower, np.lexsort((goes_right, x, y)), below_right[y, x])
    _link_runs(follower, np.lexsort((goes_down, y, x)), below_left[y, x])
    return np.column_stack((x, y)).astype(np.float64), follower.tolist()


def _link_runs(
    follower: NDArray[np.intp], along: NDArray[np.intp], is_forward: NDArray[np.bool_]
) -> None:
    """Link the ends of straight runs so that the region is on the right."""
    starts, ends = along[0::2], along[1::2]
    forward = is_forward[starts]
    follower[starts[forward]] = ends[forward]
    follower[ends[~forward]] = starts[~forward]


def fill_polygon(polygon: Polygon, hw: tuple[int, int]) -> Mask:
    """Set the pixels whose centres lie inside: the exact inverse of trace_polygon.

    Any polygon will do, on pixel edges or not; what lies outside the frame is cut off. A centre
    on a border counts as inside when the polygon lies to its right.
    """
    height, width = hw
    toggles = np.zeros((height, width + 1), np.uint8)
    np.add.at(toggles, _crossings([polygon.exterior, *polygon.holes], hw), 1)
    return np.bitwise_xor.accumulate(toggles[:, :width] & 1, axis=1).view(np.bool_)


def _crossings(
    rings: list[Points], hw: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each row whose centre line a ring crosses, and the first column right of the crossing."""
    height, width = hw
    start = np.concatenate(rings)
    follower = np.arange(1, len(start) + 1)
    stops = np.cumsum([len(ring) for ring in rings])
    follower[stops - 1] = stops - [len(ring) for ring in rings]
    end = start[follower]
    rows_at = np.ceil(np.stack((start[:, 1], end[:, 1])) - 0.5).clip(0, height).astype(np.intp)
    first, last = rows_at.min(axis=0), rows_at.max(axis=0)
    edge = np.repeat(np.arange(len(start)), last - first)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    step = (end - start)[edge]
    x = start[edge, 0] + (rows + 0.5 - start[edge, 1]) * (step[:, 0] / step[:, 1])
    return rows, np.ceil(x - 0.5).clip(0, width).astype(np.intp)


def smallest_rectangle(polygon: Polygon) -> MinAreaRect:
    """The rectangle of least area around the exterior.

    Source: OpenCV minAreaRect (rotating calipers), in float32 from the polygon's own corner.
    """
    corner = polygon.exterior.min(axis=0)
    (x, y), (width, height), angle_deg = cv2.minAreaRect(
        (polygon.exterior - corner).astype(np.float32)
    )
    if width < height:
        width, height, angle_deg = height, width, angle_deg + 90
    return MinAreaRect(
        center_xy=(float(x + corner[0]), float(y + corner[1])),
        size_px=(float(width), float(height)),
        angle_deg=float(angle_deg % 180) % 180,
    )
