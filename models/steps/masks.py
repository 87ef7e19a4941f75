"""What stage 1 imagined, as the pixels of its window that are defect."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import Mask, Scores
from models.steps.checks import largest_part
from models.steps.outlines import bridge_diagonals

AROUND_PX = 2
"""Soft pixels kept around a part that is resized: its rim is interpolated from them."""


def harden_mask(soft: Scores, side_px: int, *, threshold: float, longest_px: int) -> Mask:
    """The largest part of a soft mask at its window's side; its box as long as asked, exactly.

    The soft mask is resized, never the hard one, and what rounding left is made good after. Where
    so little is left that it vanished, its hard form is taken. Empty where nothing was imagined.

    Shapes: (S, S) in 0..1 -> (side_px, side_px), side_px at least two more than longest_px: the
            part keeps its centre if it fits there, with a rim of a pixel around it.
    """
    placed = np.zeros((side_px, side_px), bool)
    solid = _solid(soft, threshold)
    x, y, width, height = _box_of(solid)
    if width == 0:
        return placed
    around = np.s_[
        max(0, y - AROUND_PX) : y + height + AROUND_PX,
        max(0, x - AROUND_PX) : x + width + AROUND_PX,
    ]
    resized = _solid(_resize(soft[around], longest_px / max(width, height)), threshold)
    part = _of_length(_cut_to_box(resized if resized.any() else solid), longest_px)
    part_hw = np.array(part.shape)
    centre = np.array([y + height / 2, x + width / 2]) * side_px / soft.shape[0]
    top, left = np.clip(np.rint(centre - part_hw / 2), 1, side_px - 1 - part_hw).astype(int)
    placed[top : top + part_hw[0], left : left + part_hw[1]] = part
    return placed


def _solid(soft: Scores, threshold: float) -> Mask:
    return largest_part(bridge_diagonals(soft >= threshold))


def _box_of(mask: Mask) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return int(x), int(y), int(width), int(height)


def _cut_to_box(mask: Mask) -> Mask:
    x, y, width, height = _box_of(mask)
    return mask[y : y + height, x : x + width]


def _resize(soft: Scores, factor: float) -> Scores:
    size = [max(1, round(extent * factor)) for extent in soft.shape[::-1]]
    rule = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(soft, size, interpolation=rule), np.float32)


def _of_length(part: Mask, longest_px: int) -> Mask:
    """With exactly that longest side: lines of pixels said twice, or laid one upon the other.

    They are evenly spread, and what hung together does so still.
    """
    factor = longest_px / max(part.shape)
    for axis, extent in enumerate(part.shape):
        wanted = max(1, round(extent * factor))
        if wanted >= extent:
            part = part.take(np.arange(wanted) * extent // wanted, axis)
        else:
            starts = -(-np.arange(wanted) * extent // wanted)
            part = np.logical_or.reduceat(part, starts, axis)
    return part
