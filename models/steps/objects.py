"""Where the object is: threshold segmentation of a normal picture."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, RgbImage
from models.steps.checks import largest_part

WORKING_SIDE_PX = 512
"""The longer side at which the object is looked for; its outline needs no more."""


def find_object(
    image: RgbImage,
    *,
    threshold: Literal["otsu", "none"],
    polarity: Literal["bright", "dark"] = "bright",
    full_share: float = 0.98,
    least_gap: float = 48.0,
    margin_hw: tuple[float, float] = (0.0, 0.0),
) -> Mask:
    """The pixels of the object, by Otsu's threshold on the brightness.

    Specks and gaps under 2 % of the longer side are cleaned away and the largest part is kept.
    Where object and background differ by less than `least_gap`, or the object covers more than
    `full_share`, there is no background: uneven light on one surface is not two things. A margin
    is never object, for cameras that always see background along an edge.

    Units:  least_gap in grey levels of 255; margin_hw in shares of height and width, at both ends.
    Source: "A threshold selection method from gray-level histograms", Otsu 1979.
    """
    height, width = image.shape[:2]
    field = _within_margin((height, width), margin_hw)
    if threshold == "none":
        return field
    flag = cv2.THRESH_BINARY if polarity == "bright" else cv2.THRESH_BINARY_INV
    small = _shrink(image)
    _, parted = cv2.threshold(small, 0, 255, flag | cv2.THRESH_OTSU)
    rough = np.asarray(parted, np.uint8)
    solid = largest_part(_without_specks(rough) > 0)
    if not 0.02 < solid.mean() <= full_share or _gap(small, rough > 0) < least_gap:
        return field
    grown = cv2.resize(solid.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray((grown >= 0.5) & field)


def _within_margin(hw: tuple[int, int], margin_hw: tuple[float, float]) -> Mask:
    field = np.zeros(hw, bool)
    rows, columns = (
        slice(round(share * extent), extent - round(share * extent))
        for share, extent in zip(margin_hw, hw, strict=True)
    )
    field[rows, columns] = True
    return field


def _shrink(image: RgbImage) -> NDArray[np.uint8]:
    """Brightness with the longer side at the working size; small pictures stay as they are."""
    height, width = image.shape[:2]
    factor = min(1.0, WORKING_SIDE_PX / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def _gap(gray: NDArray[np.uint8], part: Mask) -> float:
    """How far the mean brightness of the two sides of a threshold lies apart."""
    if part.all() or not part.any():
        return 0.0
    return abs(float(gray[part].mean()) - float(gray[~part].mean()))


def _without_specks(rough: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = max(3, round(0.02 * max(rough.shape)) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, kernel)
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel), np.uint8)
