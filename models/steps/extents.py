"""How long and how wide a region is, a bent crack as well as a round pit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Points, Scores

LARGEST_PX = 1 << 20
"""Pixels of the largest box that is measured at full resolution; a larger one is halved."""
FINE_PX = 1 << 16
"""Pixels of the largest box that is measured at double resolution, to tell 2 px from 1 px."""
CELLS_ACROSS = 6
"""Half the width, in cells, at which a region is thinned: more would cost much and tell little."""
CELLS_ALONG = 256
"""Longest side, in cells, at which a region is thinned."""
RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""(row, column) steps to the eight neighbours: north first, then clockwise."""


@dataclass(frozen=True)
class Extent:
    """Length along the skeleton and widths across it, px.

    length_px: the longest of the shortest ways along the skeleton, from end to end of the region.
    width_px: diameter of the largest disc that fits in, so the width at the widest place.
    mean_width_px: area ÷ length; of a crack its usual width.
    """

    length_px: float
    width_px: float
    mean_width_px: float


def measure_extent(mask: Mask) -> Extent:
    """Length and widths of one region.

    A bar is as long as its longer side, a disc as its diameter; a square as its diagonal at most.
    Of a branched crack the longest way counts, of a closed ring half the way round. Time and memory
    are bounded: a box over LARGEST_PX is measured in steps of 2, 4, … px, and a region wider
    than 2 × CELLS_ACROSS or longer than CELLS_ALONG is thinned on coarser cells.

    Shapes: (h, w), one region that is not empty.
    """
    area_px, scale = float(np.count_nonzero(mask)), 1
    while mask.size > LARGEST_PX:
        mask, scale = _coarsen(mask, 2), 2 * scale
    half_widths = _half_widths(mask)
    half_px = float(half_widths.max())
    cell_px = max(1, int(half_px / CELLS_ACROSS), -(-max(mask.shape) // CELLS_ALONG))
    path = longest_path(thin(_coarsen(mask, cell_px)))
    ends = [_middle_of_cell(half_widths, cell, cell_px) for cell in (path[0], path[-1])]
    length_px = scale * (_polyline_length(path * cell_px) + sum(ends))
    length_px = max(length_px, 2.0 * scale * half_px)
    return Extent(length_px, 2.0 * scale * half_px, area_px / length_px)


def thin(mask: Mask) -> Mask:
    """The region's skeleton: one pixel wide, connected as the region is, with its ends.

    Only the pixels that are left are looked at in each round, so a thin region costs little.

    Source: "Parallel thinning with two-subiteration algorithms", Guo & Hall 1989, algorithm A1.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat, stride = padded.reshape(-1), padded.shape[1]
    steps = np.array([row * stride + column for row, column in RING])
    left = np.flatnonzero(flat)
    count = -1
    while count != left.size:
        count = left.size
        for is_removable in REMOVABLE:
            bits = flat[left[:, None] + steps]
            gone = is_removable[np.packbits(bits, axis=1, bitorder="little")[:, 0]]
            flat[left[gone]] = 0
            left = left[~gone]
    return padded[1:-1, 1:-1].view(bool)


def longest_path(skeleton: Mask) -> Points:
    """The longest of the shortest ways along a skeleton: (row, column) from one end to the other.

    Found by two searches: the farthest from any pixel is one end, the farthest from that the other.
    Exact where the skeleton has no loops.

    Shapes: (h, w), one 8-connected region -> (N, 2), N at least 1.
    """
    width = skeleton.shape[1] + 2
    pixels = np.flatnonzero(np.pad(skeleton, 1)).tolist()
    straight_first = sorted(RING, key=lambda step: abs(step[0]) + abs(step[1]))
    steps = [row * width + column for row, column in straight_first]
    end = _walk(pixels[0], set(pixels), steps)[0]
    path = _walk(end, set(pixels), steps)
    return np.array([divmod(place, width) for place in path], np.float64) - 1.0


def _walk(start: int, unseen: set[int], steps: list[int]) -> list[int]:
    """The way back from the pixel that a breadth-first search reaches last to the start."""
    came_from = {start: start}
    unseen.discard(start)
    waiting = deque([start])
    place = start
    while waiting:
        place = waiting.popleft()
        for step in steps:
            follower = place + step
            if follower in unseen:
                unseen.discard(follower)
                came_from[follower] = place
                waiting.append(follower)
    path = [place]
    while place != start:
        place = came_from[place]
        path.append(place)
    return path


def _half_widths(mask: Mask) -> Scores:
    """For each pixel the distance to the region's border, px."""
    fine = 2 if mask.size <= FINE_PX else 1
    padded = np.pad(mask, 1).view(np.uint8).repeat(fine, axis=0).repeat(fine, axis=1)
    apart = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if fine == 1:
        return np.asarray(apart[1:-1, 1:-1] - 0.25 * mask, np.float32)
    rows = np.maximum(apart[2:-2:2], apart[3:-2:2])
    return np.asarray(0.5 * np.maximum(rows[:, 2:-2:2], rows[:, 3:-2:2]), np.float32)


def _coarsen(mask: Mask, cell_px: int) -> Mask:
    """Cells of that side, set where one of their pixels is: what hangs together still does."""
    if cell_px == 1:
        return mask
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % cell_px), (0, -width % cell_px)))
    rows, columns = padded.shape[0] // cell_px, padded.shape[1] // cell_px
    bands = padded.reshape(rows, cell_px, -1).any(axis=1)
    return np.asarray(bands.reshape(rows, columns, cell_px).any(axis=2))


def _middle_of_cell(half_widths: Scores, cell: NDArray[np.float64], cell_px: int) -> float:
    row, column = (
        min(int(at) * cell_px + cell_px // 2, extent - 1)
        for at, extent in zip(cell, half_widths.shape, strict=True)
    )
    return float(half_widths[row, column])


def _polyline_length(points: Points) -> float:
    """Length of a way over pixels, its stairs smoothed by a running mean of 5.

    The stairs of a slanting line would count up to 8 % too much. The ends stay where they are.
    """
    if len(points) < 3:
        return float(np.hypot(*(points[-1] - points[0])))
    reach = min(2, (len(points) - 1) // 2)
    smooth = np.stack(
        [
            np.convolve(axis, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")
            for axis in points.T
        ]
    )
    whole = np.concatenate([points[:1], smooth.T, points[-1:]])
    return float(np.hypot(*np.diff(whole, axis=0).T).sum())


def _removable(is_second: bool) -> NDArray[np.bool_]:
    """For each of the 256 neighbourhoods (bit k: the k-th of RING), whether its pixel goes."""
    n, ne, e, se, s, sw, w, nw = ((np.arange(256) >> k & 1).astype(bool) for k in range(8))
    crossings = sum(
        (~side & (corner | after)).astype(int)
        for side, corner, after in ((n, ne, e), (e, se, s), (s, sw, w), (w, nw, n))
    )
    pairs = np.minimum(
        sum((a | b).astype(int) for a, b in ((nw, n), (ne, e), (se, s), (sw, w))),
        sum((a | b).astype(int) for a, b in ((n, ne), (e, se), (s, sw), (w, nw))),
    )
    kept = (n | ne | ~se) & e if is_second else (s | sw | ~nw) & w
    return np.asarray((crossings == 1) & (pairs >= 2) & (pairs <= 3) & ~kept)


REMOVABLE = (_removable(is_second=False), _removable(is_second=True))
"""Which pixels go in the two halves of each round of thinning."""
