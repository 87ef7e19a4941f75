"""`annotations.json` of a zip archive: synthetic defects as COCO tools read them."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from models.steps.drafts import SyntheticDefect
from models.steps.outlines import Region
from service.schemas import Box


class RleOut(BaseModel):
    """A mask as COCO's uncompressed run lengths, column by column, zeros first."""

    size: tuple[int, int]
    counts: list[int]

    @classmethod
    def of(cls, region: Region, image_hw: tuple[int, int]) -> RleOut:
        """The region on a canvas of the image's size."""
        canvas = np.zeros(image_hw, bool)
        height, width = region.mask.shape
        canvas[region.y : region.y + height, region.x : region.x + width] = region.mask
        column_major = canvas.ravel(order="F")
        changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
        counts = np.diff(np.concatenate([[0], changes, [canvas.size]])).tolist()
        return cls(size=image_hw, counts=[0, *counts] if column_major[0] else counts)


class CocoImageOut(BaseModel):
    """One picture of `annotations.json`, its mask's file and its seed."""

    id: int
    file_name: str
    mask_file_name: str
    width: int
    height: int
    seed: int


class CocoAnnotationOut(BaseModel):
    """One defect. Its outline is a polygon, or run lengths where holes forbid a polygon."""

    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float
    iscrowd: int = 0
    segmentation: list[list[float]] | RleOut

    @classmethod
    def of(
        cls, defect: SyntheticDefect, image: CocoImageOut, ids: tuple[int, int]
    ) -> CocoAnnotationOut:
        """`ids` are the annotation's and its category's."""
        region = defect.region
        ring = region.polygon.exterior.ravel().tolist()
        has_holes = bool(region.polygon.holes)
        return cls(
            id=ids[0],
            image_id=image.id,
            category_id=ids[1],
            bbox=region.box,
            area=region.area_px,
            segmentation=RleOut.of(region, (image.height, image.width)) if has_holes else [ring],
        )


class CocoCategoryOut(BaseModel):
    """One label."""

    id: int
    name: str


class CocoOut(BaseModel):
    """`annotations.json` of a zip archive, readable by COCO tools."""

    info: dict[str, str | int | dict[str, int]]
    images: list[CocoImageOut] = []
    annotations: list[CocoAnnotationOut] = []
    categories: list[CocoCategoryOut]
