"""Picture -> confidence field, whichever locator a bundle has."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import RgbImage
from models.graphs import HeatmapLocator, Locator, PoseLocator
from models.steps.fields import ConfidenceField, DenseField, PointField


def predict_field(image: RgbImage, locator: Locator, *, is_dense: bool = False) -> ConfidenceField:
    """Run the locator on a whole picture.

    is_dense: more than the strongest peaks is wanted: the matrix, its greatest elements, or peaks
    in a part of the picture. Else a heatmap's graph that finds its peaks gives nothing more.
    """
    if isinstance(locator, PoseLocator):
        return _regress_points(image, locator)
    return _find_cells(image, locator, is_dense=is_dense)


def shrink_to(image: RgbImage, look_hw: tuple[int, int]) -> RgbImage:
    """The look of a picture, each of its pixels the mean of those that it stands for."""
    look = cv2.resize(image, look_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(look, np.uint8)


def _regress_points(image: RgbImage, locator: PoseLocator) -> PointField:
    look = shrink_to(image, locator.look_hw)
    (points,) = locator.graph(image=image[None], look=look[None])
    return PointField(points[0], _hw_of(image))


def _find_cells(image: RgbImage, locator: HeatmapLocator, *, is_dense: bool) -> ConfidenceField:
    padded = _pad_to_multiple(image, locator.multiple_px)
    if locator.peaks and not is_dense:
        (peaks,) = locator.peaks(image=padded[None])
        return _point_field(peaks[0], locator.stride_px, _hw_of(image))
    cells, *found = locator.graph(image=padded[None])
    dense = _dense_field(cells[0], locator.stride_px, _hw_of(image))
    if not found:
        return dense
    return replace(_point_field(found[0][0], locator.stride_px, dense.image_hw), dense=dense)


def _point_field(
    cells: NDArray[np.float32], stride_px: int, image_hw: tuple[int, int]
) -> PointField:
    """Cells (K, 4), whose last column says which are peaks; each spreads as far as a cell."""
    is_peak = cells[:, 3] > 0
    points = np.column_stack([cells[:, :3], np.full(len(cells), stride_px, np.float32)])
    return PointField(points[is_peak], image_hw, fillers=points[~is_peak])


def _dense_field(
    cells: NDArray[np.float32], stride_px: int, image_hw: tuple[int, int]
) -> DenseField:
    """Logit and offsets (3, h, w), without the cells that lie wholly outside the picture."""
    rows, columns = (-(-side // stride_px) for side in image_hw)
    inside = cells[:, :rows, :columns]
    return DenseField(np.ascontiguousarray(inside[0]), inside[1:], stride_px, image_hw)


def _pad_to_multiple(image: RgbImage, multiple_px: int) -> RgbImage:
    """A picture whose far edges are repeated up to the sides that a graph needs."""
    down, right = (-side % multiple_px for side in image.shape[:2])
    if not (down or right):
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE))


def _hw_of(image: RgbImage) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
