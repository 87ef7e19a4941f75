"""Whether a mask may stand where it is: an imagined one, or a client's own."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import Mask
from models.errors import MaskMismatch

MAX_CLIENT_REGIONS = 64
"""Each region of a client's mask is painted by runs of its own: more are refused beforehand."""


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


def require_client_mask(mask: Mask, hw: tuple[int, int]) -> None:
    """Refuse a client's mask of another size, of nothing, or of more regions than are painted.

    Errors: MaskMismatch.
    """
    if mask.shape != hw:
        size = f"{mask.shape[1]} × {mask.shape[0]}"
        raise MaskMismatch(f"the mask is {size} px, the picture {hw[1]} × {hw[0]}")
    regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] - 1
    if regions < 1:
        raise MaskMismatch("the mask is empty: it asks for no defect")
    if regions > MAX_CLIENT_REGIONS:
        raise MaskMismatch(
            f"the mask has {regions} regions; at most {MAX_CLIENT_REGIONS} are painted"
        )


def largest_part(mask: Mask) -> Mask:
    """The largest 4-connected part of a mask; crumbs beside it are no defects."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
