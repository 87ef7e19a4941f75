"""Whether an imagined mask may stand where it is."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import Mask


def objection_to(mask: Mask, *, allowed: Mask, taken: Mask, min_area_px: float) -> str | None:
    """Why a mask may not stand in its window: empty, cut, outside, overlap; None where it may.

    `cut` is a mask that its window's edge cuts off; `overlap` one that would touch, and so merge
    with, a defect that is there already.

    Shapes: all (side, side), of the same window.
    """
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    near = cv2.dilate(taken.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    objections = {
        "empty": mask.sum() < min_area_px,
        "cut": rim.any(),
        "outside": (mask & ~allowed).any(),
        "overlap": (mask & near).any(),
    }
    return next((objection for objection, holds in objections.items() if holds), None)


def largest_part(mask: Mask) -> Mask:
    """The largest 4-connected part of a mask; crumbs beside it are no defects."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
