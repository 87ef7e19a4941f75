"""Changes that keep the truth true; each takes an rng."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import RgbImage

LabelMap = NDArray[np.uint8]
"""(H, W) uint8: 0 background, k the k-th label."""


def flip(image: RgbImage, labels: LabelMap, rng: np.random.Generator) -> tuple[RgbImage, LabelMap]:
    """Mirror left-right and top-bottom, each half of the time."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def relight(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Another exposure, contrast, gamma and white balance, as another lamp would give."""
    gain = np.exp(rng.normal(0.0, 0.12)) * np.exp(rng.normal(0.0, 0.03, 3))
    gamma = np.exp(rng.normal(0.0, 0.12))
    offset = rng.normal(0.0, 6.0)
    levels = np.arange(256)[:, None] / 255.0
    table = np.clip(255.0 * gain * levels**gamma + offset, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[:, None, :]), np.uint8)


def defocus(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    """A slight blur or sensor noise, each in a quarter of the draws."""
    draw = rng.random()
    if draw < 0.25:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2)), np.uint8)
    if draw < 0.5:
        noise = rng.normal(0.0, rng.uniform(1.0, 5.0), image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def zoom(
    image: RgbImage, labels: LabelMap, center_xy: tuple[float, float], side_px: int, factor: float
) -> tuple[RgbImage, LabelMap]:
    """A square of `side_px` around a point, seen `factor` times larger; the edge is mirrored.

    A smaller picture is the mean of a finer one, as serving shrinks by area: lines between the
    sampled pixels do not vanish.

    Shapes: image (H, W, 3), labels (H, W) -> (side_px, side_px, 3), (side_px, side_px).
    """
    finer = max(1, math.ceil(1 / factor))
    seen = _cut(image, center_xy, finer * side_px, finer * factor, cv2.INTER_LINEAR)
    if finer > 1:
        size = (side_px, side_px)
        seen = np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), np.uint8)
    return seen, _cut(labels, center_xy, side_px, factor, cv2.INTER_NEAREST)


def _cut(
    pixels: NDArray[np.uint8],
    center_xy: tuple[float, float],
    side_px: int,
    factor: float,
    rule: int,
) -> NDArray[np.uint8]:
    shift = side_px / 2 - factor * np.array(center_xy)
    matrix = np.array([[factor, 0.0, shift[0]], [0.0, factor, shift[1]]])
    matrix[:, 2] += 0.5 * (factor - 1)
    size, border = (side_px, side_px), cv2.BORDER_REFLECT_101
    return np.asarray(cv2.warpAffine(pixels, matrix, size, flags=rule, borderMode=border), np.uint8)
