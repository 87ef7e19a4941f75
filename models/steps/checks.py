"""Whether a mask may stand where it is: an imagined one, or a client's own."""

from __future__ import annotations

import cv2
import numpy as np

from models.arrays import Mask
from models.errors import MaskMismatch

MAX_CLIENT_REGIONS = 64
"""Each region of a client's mask is painted by runs of its own: more are refused beforehand."""
MAX_DEFECT_SIDE_PX = 1024
"""A defect is painted in a square of floats around it, so its longest side bounds the memory."""
MAX_CLIENT_EDGES = 100_000
"""Pixel edges of a mask, whose tracing takes about a microsecond each."""


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
    """Refuse a client's mask of another size, of nothing, or of more than can be painted.

    Regions are 4-connected: a line that is one pixel wide and slants is many.

    Errors: MaskMismatch.
    """
    if mask.shape != hw:
        size = f"{mask.shape[1]} × {mask.shape[0]}"
        raise MaskMismatch(f"the mask is {size} px, the picture {hw[1]} × {hw[0]}")
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        raise MaskMismatch("the mask is empty: it asks for no defect")
    sides_px = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    edges = np.count_nonzero(mask[1:] ^ mask[:-1]) + np.count_nonzero(mask[:, 1:] ^ mask[:, :-1])
    for what, found, most in (
        ("4-connected regions", count - 1, MAX_CLIENT_REGIONS),
        ("px on the longest side of a region", int(sides_px.max()), MAX_DEFECT_SIDE_PX),
        ("pixel edges", edges, MAX_CLIENT_EDGES),
    ):
        if found > most:
            raise MaskMismatch(f"the mask has {found} {what}; at most {most} can be painted")


def largest_part(mask: Mask) -> Mask:
    """The largest 4-connected part of a mask; crumbs beside it are no defects."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
