"""Windows around points, and where they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import RgbImage


@dataclass(frozen=True)
class Window:
    """A square of whole pixels in a picture; only in a smaller picture does it reach outside."""

    x: int
    y: int
    side_px: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height)."""
        return self.x, self.y, self.side_px, self.side_px

    def shows(self, point_xy: tuple[float, float]) -> bool:
        """Whether a point lies inside."""
        x, y = point_xy
        return self.x <= x < self.x + self.side_px and self.y <= y < self.y + self.side_px

    def slices_in(self, hw: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the part that lies in a picture of that size."""
        return (
            slice(max(self.y, 0), min(self.y + self.side_px, hw[0])),
            slice(max(self.x, 0), min(self.x + self.side_px, hw[1])),
        )


def window_around(center_xy: tuple[float, float], side_px: int, hw: tuple[int, int]) -> Window:
    """The window with that centre, shifted inside the picture where it would reach out.

    A picture smaller than the window gets it at 0 on that axis, with the rest beyond its far edge.
    """
    x, y = (
        int(np.clip(round(centre - side_px / 2), 0, max(extent - side_px, 0)))
        for centre, extent in zip(center_xy, (hw[1], hw[0]), strict=True)
    )
    return Window(x, y, side_px)


def cut_crop(image: RgbImage, window: Window) -> RgbImage:
    """The pixels of a window; what lies outside the picture repeats its edge.

    Shapes: image (H, W, ...) -> (side_px, side_px, ...), a copy.
    """
    rows, columns = window.slices_in(image.shape[:2])
    inside = image[rows, columns]
    missing = (
        (rows.start - window.y, window.y + window.side_px - rows.stop),
        (columns.start - window.x, window.x + window.side_px - columns.stop),
    )
    if missing == ((0, 0), (0, 0)):
        return np.ascontiguousarray(inside)
    return np.pad(inside, (*missing, *[(0, 0)] * (image.ndim - 2)), mode="edge")


def resize_crop(crop: RgbImage, side_px: int) -> RgbImage:
    """A square crop at another side: area averaging down, bilinear up; a copy only where needed."""
    if crop.shape[0] == side_px:
        return crop
    rule = cv2.INTER_AREA if crop.shape[0] > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (side_px, side_px), interpolation=rule), crop.dtype)


def overlapping_groups(windows: list[Window]) -> list[list[int]]:
    """Indices of windows that share pixels or an edge, directly or through others, in order."""
    groups: list[list[int]] = []
    for index, window in enumerate(windows):
        joined = [g for g in groups if any(_touch(window, windows[other]) for other in g)]
        groups = [g for g in groups if g not in joined]
        groups.append(sorted([index, *(member for g in joined for member in g)]))
    return sorted(groups)


def _touch(a: Window, b: Window) -> bool:
    gap_x = abs(2 * a.x + a.side_px - 2 * b.x - b.side_px) - a.side_px - b.side_px
    gap_y = abs(2 * a.y + a.side_px - 2 * b.y - b.side_px) - a.side_px - b.side_px
    return gap_x <= 0 and gap_y <= 0
