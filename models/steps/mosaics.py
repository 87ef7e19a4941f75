"""Scores of overlapping windows put together, so that one defect stays one region."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Scores
from models.steps.crops import Window, overlapping_groups
from models.steps.outlines import Region

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
BESIDE = tuple(np.eye(9, dtype=np.uint8)[k].reshape(3, 3) for k in (1, 3, 5, 7))
"""Kernels that look at one neighbour alone: above, left, right, below."""


@dataclass(frozen=True)
class Mosaic:
    """What the windows of one place say together.

    scores:  (K, h, w) float32 or float16, the background first; background where no window looked.
    is_open: (h + 2, w + 2), one pixel wider on each side: in the picture, yet seen by no window.
    x, y:    where its top left pixel lies in the picture.
    """

    scores: NDArray[np.floating]
    is_open: Mask
    x: int
    y: int

    def goes_on_unseen(self, region: Region) -> bool:
        """Whether a region touches a pixel of the picture that no window covered."""
        return bool(self._unseen_beside(region).any())

    def exits(self, region: Region) -> list[tuple[float, float]]:
        """Where a region goes on unseen: a pixel's centre (x, y) for each place, widest first.

        A place is a run of unseen pixels on one side of the region, so that a defect that fills its
        window leaves it by four.
        """
        found: list[tuple[int, tuple[float, float]]] = []
        for kernel in BESIDE:
            beside = self._unseen_beside(region, kernel).view(np.uint8)
            _, runs, stats, centroids = cv2.connectedComponentsWithStats(beside, connectivity=8)
            for run in range(1, len(stats)):
                y, x = np.nonzero(runs == run)
                middle = np.hypot(x - centroids[run, 0], y - centroids[run, 1]).argmin()
                at = float(x[middle] + region.x) - 0.5, float(y[middle] + region.y) - 0.5
                found.append((-len(x), at))
        return [at for _, at in sorted(found)]

    def scores_in(self, region: Region) -> NDArray[np.float32]:
        """(K, N) scores of the region's N pixels."""
        top, left = region.y - self.y, region.x - self.x
        height, width = region.mask.shape
        here = self.scores[:, top : top + height, left : left + width][:, region.mask]
        return np.asarray(here, np.float32)

    def _unseen_beside(self, region: Region, kernel: NDArray[np.uint8] = CROSS) -> Mask:
        """(h + 2, w + 2): unseen pixels that touch the region."""
        top, left = region.y - self.y, region.x - self.x
        height, width = region.mask.shape
        is_open = self.is_open[top : top + height + 2, left : left + width + 2]
        around = cv2.dilate(np.pad(region.mask, 1).view(np.uint8), kernel).view(bool)
        return np.asarray(around & is_open)


def lay_mosaics(
    windows: list[Window], scores: NDArray[np.float32], hw: tuple[int, int]
) -> list[Mosaic]:
    """One mosaic for each group of windows that overlap or touch.

    Where windows overlap, their scores are averaged with weights that fall to the windows' edges,
    for a segmenter sees least where its crop ends.

    Shapes: N windows, scores (N, K, side, side), hw the picture's size.
    """
    return [_lay(windows, scores, group, hw) for group in overlapping_groups(windows)]


def _lay(
    windows: list[Window], scores: NDArray[np.float32], group: list[int], hw: tuple[int, int]
) -> Mosaic:
    rows, columns = zip(*(windows[i].slices_in(hw) for i in group), strict=True)
    y, x = min(r.start for r in rows), min(c.start for c in columns)
    height, width = max(r.stop for r in rows) - y, max(c.stop for c in columns) - x
    weight = _weight(windows[group[0]].side_px)
    total = np.zeros((height, width), np.float32)
    blend = np.zeros((scores.shape[1], height, width), np.float32)
    for i, row, column in zip(group, rows, columns, strict=True):
        there = slice(row.start - y, row.stop - y), slice(column.start - x, column.stop - x)
        here = (
            slice(row.start - windows[i].y, row.stop - windows[i].y),
            slice(column.start - windows[i].x, column.stop - windows[i].x),
        )
        total[there] += weight[here]
        blend[:, *there] += weight[here] * scores[i][:, *here]
    np.divide(blend, total, out=blend, where=total > 0)
    blend[0, total == 0] = 1.0
    is_open = np.pad(total == 0, 1, constant_values=True)
    is_open[: 1 if y == 0 else 0] = False
    is_open[:, : 1 if x == 0 else 0] = False
    is_open[hw[0] - y + 1 :] = False
    is_open[:, hw[1] - x + 1 :] = False
    return Mosaic(blend, is_open, x, y)


def _weight(side_px: int) -> Scores:
    """A pyramid: 1 in the middle, near 0 at the edge, never 0."""
    rise = 1.0 - np.abs((np.arange(side_px) + 0.5) * 2 / side_px - 1.0)
    return np.asarray(np.minimum(rise[:, None], rise[None, :]), np.float32)
