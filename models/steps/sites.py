"""Where a defect may come to lie, and the square that the generators are shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, RgbImage
from models.errors import ParameterInvalid
from models.steps.crops import Window, cut_crop, resize_crop, window_around

LEAST_SIDE_PX = 24
"""No site is smaller: a tiny defect still needs surroundings to be painted into."""


@dataclass(frozen=True)
class Site:
    """A square of a picture as the generators see it.

    image (S, S, 3) uint8, object (S, S) bool; S the generators' side, whatever the window's.
    """

    window: Window
    image: RgbImage
    object: Mask

    @property
    def scale(self) -> np.float32:
        """log2 of picture pixels per generator pixel, a condition of both generators."""
        return np.float32(np.log2(self.window.side_px / self.image.shape[0]))

    def has_room(self, longest_px: int) -> bool:
        """Whether a defect as long as that, in the middle, lies on allowed pixels alone."""
        side = self.object.shape[0]
        margin = max(0, (side - round(side * longest_px / self.window.side_px)) // 2)
        return bool(self.object[margin : side - margin, margin : side - margin].all())


def conditions_of(sites: Sequence[Site], labels: Sequence[int]) -> dict[str, NDArray[Any]]:
    """What both generators are told of a batch of sites: image, label, scale."""
    return {
        "image": np.stack([site.image for site in sites]),
        "label": np.array(labels, np.int64),
        "scale": np.array([site.scale for site in sites], np.float32),
    }


def allow_box(box: tuple[int, int, int, int], hw: tuple[int, int]) -> Mask:
    """The pixels of a box (x, y, width, height) in a picture of that size.

    Errors: ParameterInvalid where it is empty or reaches outside.
    """
    x, y, width, height = box
    if width < 1 or height < 1:
        raise ParameterInvalid("region", "width and height must be at least 1")
    if x < 0 or y < 0 or x + width > hw[1] or y + height > hw[0]:
        raise ParameterInvalid("region", f"reaches outside the picture of {hw[1]} × {hw[0]} px")
    allowed = np.zeros(hw, bool)
    allowed[y : y + height, x : x + width] = True
    return allowed


def draw_defect_side_px(
    sides_px: tuple[float, ...],
    rng: np.random.Generator,
    within_px: tuple[int, int] | None = None,
) -> float:
    """A longest side from the quantiles of real defects', cut to a range where one is given.

    A range that holds no real side is drawn from evenly; a side in a range is a whole number.
    """
    shares = np.linspace(0, 1, len(sides_px))
    if within_px is None:
        return float(np.interp(rng.random(), shares, sides_px))
    least, most = np.interp(within_px, sides_px, shares)
    if least == most:
        return float(round(rng.uniform(*within_px)))
    drawn = float(np.interp(rng.uniform(least, most), shares, sides_px))
    return float(np.clip(round(drawn), *within_px))


def site_side_px(
    defect_px: float, crop_scale: tuple[float, float], rng: np.random.Generator
) -> int:
    """A window's side for a defect of that longest side, with surroundings to be painted into."""
    return max(LEAST_SIDE_PX, round(defect_px * rng.uniform(*crop_scale)))


def draw_site_side_px(
    sides_px: tuple[float, ...], crop_scale: tuple[float, float], rng: np.random.Generator
) -> int:
    """A window's side for a defect drawn from the quantiles of real defects' longest sides."""
    return site_side_px(draw_defect_side_px(sides_px, rng), crop_scale, rng)


def draw_site_center(allowed: Mask, rng: np.random.Generator) -> tuple[float, float]:
    """The centre of an allowed pixel, each as likely as any other.

    Shapes: allowed (H, W), with at least one True.
    """
    counts = cv2.reduce(allowed.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    rows = np.cumsum(counts, dtype=np.int64)
    nth = int(rng.integers(rows[-1]))
    row = int(np.searchsorted(rows, nth, side="right"))
    before = int(rows[row - 1]) if row else 0
    column = int(np.flatnonzero(allowed[row])[nth - before])
    return column + 0.5, row + 0.5


def cut_site(
    image: RgbImage, allowed: Mask, center_xy: tuple[float, float], side_px: int, shown_px: int
) -> Site:
    """The square of `side_px` around a point, shown to the generators at `shown_px`."""
    window = window_around(center_xy, side_px, image.shape[:2])
    shown = resize_crop(cut_crop(image, window), shown_px)
    inside = cut_crop(allowed.view(np.uint8), window) * np.uint8(255)
    return Site(window, shown, resize_crop(inside, shown_px) > 127)


def enlarge(values: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """What a generator answered, at the window's own side: (S, S) or (S, S, 3) -> (side, side, …).

    Only masks, foregrounds and alphas come this way, never the picture.
    """
    if values.shape[0] == side_px:
        return values
    rule = cv2.INTER_AREA if values.shape[0] > side_px else cv2.INTER_CUBIC
    resized: Any = cv2.resize(values, (side_px, side_px), interpolation=rule)
    return np.asarray(np.clip(resized, 0.0, 1.0), np.float32)


def as_bytes(mask: Mask) -> NDArray[np.uint8]:
    """A mask as the generators take it: 0 or 255."""
    return mask.view(np.uint8) * np.uint8(255)
