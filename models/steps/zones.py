"""Where in one picture defects are looked for: zones laid on its pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import Mask, Points, RgbImage
from models.inspection import Zone, Zones
from models.steps.objects import WORKING_SIDE_PX
from models.steps.outlines import Polygon, Region, fill_polygon


@dataclass(frozen=True)
class Scope:
    """The zones of one picture. No mask of the picture's size is kept: parts are drawn when asked.

    look, ignore: polygons in pixels of the picture. object_mask: (h, w) of any size, laid over the
    whole picture; None where the object does not matter.
    """

    zones: Zones
    image_hw: tuple[int, int]
    object_mask: Mask | None = None

    def mask(self, hw: tuple[int, int], *, offset_xy: tuple[int, int] = (0, 0)) -> Mask:
        """Which pixels of a box lie inside."""
        return self._draw(hw, np.array(offset_xy, np.float64), 1)

    def cells(self, hw: tuple[int, int], stride_px: int) -> Mask:
        """Which cells of a heatmap are looked at: they or a neighbour have their centre inside."""
        inside = self._draw(hw, np.zeros(2), stride_px)
        return np.asarray(cv2.dilate(inside.view(np.uint8), np.ones((3, 3), np.uint8))).view(bool)

    def holds(self, region: Region) -> bool:
        """Whether enough of a region lies inside for it to count."""
        inside = self.mask(region.mask.shape, offset_xy=(region.x, region.y)) & region.mask
        least = max(1.0, self.zones.least_share * region.area_px)
        return bool(np.count_nonzero(inside) >= least)

    def _draw(self, hw: tuple[int, int], offset_xy: Points, step_px: int) -> Mask:
        """The grid of that size whose cells are step_px wide."""
        look, ignore = (
            _union(((self._place(zone) - offset_xy) / step_px for zone in zones), hw)
            for zones in (self.zones.look, self.zones.ignore)
        )
        inside = ~ignore if not self.zones.look else look & ~ignore
        if self.object_mask is not None and self.zones.on_object:
            inside &= self._object_in(hw, offset_xy, step_px)
        return inside

    def _place(self, zone: Zone) -> Points:
        """A zone's points in pixels of the picture."""
        points = np.array(zone.points, np.float64)
        if zone.frame == "px":
            return points
        corner_xy, size_xy = np.zeros(2), np.array(self.image_hw[::-1], np.float64)
        if zone.frame == "object" and self.object_mask is not None:
            scale_xy = size_xy / self.object_mask.shape[::-1]
            x, y, width, height = cv2.boundingRect(self.object_mask.view(np.uint8))
            corner_xy, size_xy = np.array((x, y)) * scale_xy, np.array((width, height)) * scale_xy
        return np.asarray(corner_xy + points * size_xy)

    def _object_in(self, hw: tuple[int, int], offset_xy: Points, step_px: int) -> Mask:
        assert self.object_mask is not None
        rows, columns = (
            np.minimum(
                ((np.arange(count) + 0.5) * step_px + offset) * known / extent, known - 1
            ).astype(np.intp)
            for count, offset, known, extent in zip(
                hw, offset_xy[::-1], self.object_mask.shape, self.image_hw, strict=True
            )
        )
        return np.asarray(self.object_mask[np.ix_(rows, columns)])


def needs_object(zones: Zones) -> bool:
    """Whether the object must be found before the zones can be laid."""
    return zones.on_object or any(z.frame == "object" for z in (*zones.look, *zones.ignore))


def is_everywhere(zones: Zones) -> bool:
    """Whether these zones leave nothing out."""
    return not (zones.look or zones.ignore or zones.on_object)


def shrink_for_object(image: RgbImage) -> RgbImage:
    """The picture at the size at which objects are found; a small one as it is."""
    height, width = image.shape[:2]
    factor = min(1.0, WORKING_SIDE_PX / max(height, width))
    if factor == 1.0:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _union(rings: Iterable[Points], hw: tuple[int, int]) -> Mask:
    union = np.zeros(hw, bool)
    for ring in rings:
        union |= fill_polygon(Polygon(ring), hw)
    return union
