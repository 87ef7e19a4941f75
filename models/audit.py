"""What the n crops missed: the whole picture, slice by slice, through the same segmenter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from models.arrays import RgbImage
from models.detection import BATCH, Detection, Detector, lay_zones, segment_crops
from models.findings import Defect, Standard, find_defects
from models.rules import judge
from models.steps.crops import Window, cut_crop
from models.steps.mosaics import Mosaic
from models.steps.outlines import Region, place_region
from models.steps.pictures import Picture
from models.steps.zones import Scope

OVERLAP = 0.25
"""Share of a slice that the next one sees too, so that neither judges by its edge."""


@dataclass(frozen=True)
class Audit:
    """What slicing the whole picture adds to a detection.

    slices, of_slices: how many were looked into, of those that see a place that counts.
    missed: defects that share no pixel with what the detection found, strongest first. Their score
    is the segmenter's alone, for the locator did not point there. `crops` are those that showed the
    place all the same.
    """

    slices: int
    of_slices: int
    missed: tuple[Defect, ...]
    took_ms: float


@dataclass(frozen=True)
class Slice:
    """A window, and the part of the picture that it alone answers for."""

    window: Window
    rows: slice
    columns: slice


def audit(
    picture: Picture,
    detection: Detection,
    detector: Detector,
    *,
    go_on: Callable[[], bool] = lambda: True,
) -> Audit:
    """Look everywhere that a detection of the same picture by the same detector did not.

    Zones, limits and rules hold as they did. This takes as long as slicing does, so `go_on` is
    asked before each batch of slices: it may say no, which ends the audit with the slices so far,
    or raise. They come in an order that is spread over the picture.
    """
    started_s = time.perf_counter()
    image = picture.as_rgb8()
    scope = lay_zones(image, detector)
    slices = [
        one
        for one in lay_slices(picture.hw, detector.params.crop_size_px)
        if scope is None or _is_in(scope, one)
    ]
    whole, looked = _segment_slices(image, slices, detector, go_on)
    standard = Standard(detector.labels, detector.params, None, scope)
    known = [*detection.defects, *(one.defect for one in detection.tolerated)]
    new = [
        defect
        for defect in find_defects(whole, [crop.window for crop in detection.crops], standard)
        if not any(_overlap(defect.region, other.region) for other in known)
    ]
    counting = judge([*known, *new], detector.params, detector.mm_per_px).defects
    missed = tuple(defect for defect in counting if any(defect is one for one in new))
    return Audit(looked, len(slices), missed, 1e3 * (time.perf_counter() - started_s))


def lay_slices(hw: tuple[int, int], side_px: int) -> list[Slice]:
    """Slices that cover a picture; where they overlap, each answers up to the middle."""
    rows, columns = (_spans(extent, side_px) for extent in hw)
    return [
        Slice(Window(x, y, side_px), own_rows, own_columns)
        for (y, own_rows), (x, own_columns) in product(rows, columns)
    ]


def _spans(extent_px: int, side_px: int) -> list[tuple[int, slice]]:
    """Along one axis: where each slice starts, and its own part."""
    last = max(0, extent_px - side_px)
    starts = [*range(0, last, side_px - int(OVERLAP * side_px)), last]
    middles = [(one + side_px + other) // 2 for one, other in pairwise(starts)]
    edges = pairwise([0, *middles, extent_px])
    return [(start, slice(*own)) for start, own in zip(starts, edges, strict=True)]


def _is_in(scope: Scope, one: Slice) -> bool:
    hw = one.rows.stop - one.rows.start, one.columns.stop - one.columns.start
    return bool(scope.mask(hw, offset_xy=(one.columns.start, one.rows.start)).any())


def _segment_slices(
    image: RgbImage, slices: list[Slice], detector: Detector, go_on: Callable[[], bool]
) -> tuple[Mosaic, int]:
    """The picture as one mosaic, background where no slice looked; and how many did."""
    height, width = image.shape[:2]
    scores = np.zeros((1 + len(detector.labels), height, width), np.float16)
    scores[0] = 1.0
    spread = [slices[i] for i in np.random.default_rng(0).permutation(len(slices))]
    looked = 0
    while looked < len(spread) and go_on():
        batch = spread[looked : looked + BATCH]
        crops = [cut_crop(image, one.window) for one in batch]
        for one, of_slice in zip(batch, segment_crops(crops, detector), strict=True):
            y, x = one.window.y, one.window.x
            rows = slice(one.rows.start - y, one.rows.stop - y)
            columns = slice(one.columns.start - x, one.columns.stop - x)
            scores[:, one.rows, one.columns] = of_slice[:, rows, columns]
        looked += len(batch)
    return Mosaic(scores, np.zeros((height + 2, width + 2), bool), 0, 0), looked


def _overlap(one: Region, other: Region) -> bool:
    return bool((place_region(other, (one.x, one.y), one.mask.shape) & one.mask).any())
