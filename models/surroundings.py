"""Crops, the crops beside them where a defect goes on unseen, and the defects that they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.arrays import RgbImage
from models.findings import Defect, Standard, find_defects
from models.steps.crops import Window, cut_crop, window_around
from models.steps.fields import ConfidenceField
from models.steps.heatmap import Peak
from models.steps.mosaics import Mosaic, lay_mosaics
from models.steps.stopwatch import Stopwatch

Segment = Callable[[list[RgbImage]], NDArray[np.float32]]
"""N crops (S, S, 3) -> probabilities (N, 1 + labels, S, S), the background first."""


@dataclass(frozen=True)
class Crop:
    """A square that was looked into; `rank` counts from 1, the most confident peak first.

    reason: `peak`, or `neighbour` of a crop that a defect left unseen; those come last.
    """

    rank: int
    center_xy: tuple[float, float]
    confidence: float
    box: tuple[int, int, int, int]
    reason: Literal["peak", "neighbour"] = "peak"

    @property
    def window(self) -> Window:
        """The same square, to be cut."""
        return Window(*self.box[:3])


def place_crops(peaks: list[Peak], side_px: int, hw: tuple[int, int]) -> list[Crop]:
    """A crop around each peak of a picture of that size, in their order."""
    return [
        Crop(rank, (p.x, p.y), p.confidence, window_around((p.x, p.y), side_px, hw).box)
        for rank, p in enumerate(peaks, start=1)
    ]


def look_into(
    image: RgbImage, crops: list[Crop], standard: Standard, segment: Segment, watch: Stopwatch
) -> tuple[list[Crop], list[Defect]]:
    """The crops and those beside them that were needed, and the defects that all of them show.

    Where a defect goes on unseen, the crop beyond is looked into as well: the strongest defect
    first, at most `extra_crops` in all. What still goes on then is truncated.
    """
    looked: list[Crop] = []
    scores: list[NDArray[np.float32]] = []
    new, left, hw = crops, standard.params.extra_crops, image.shape[:2]
    while True:
        looked += new
        with watch.time("segment"):
            scores.append(segment([cut_crop(image, crop.window) for crop in new]))
        with watch.time("outline"):
            windows = [crop.window for crop in looked]
            found = [
                (mosaic, defect)
                for mosaic in lay_mosaics(windows, np.concatenate(scores), hw)
                for defect in find_defects(mosaic, windows, standard)
            ]
            places = _unseen_places(found, standard.params.crop_size_px, hw)[:left]
            new = [
                Crop(rank, at, _confidence(standard.field, at), window.box, "neighbour")
                for rank, (at, window) in enumerate(places, start=len(looked) + 1)
            ]
        if not new:
            return looked, [defect for _, defect in found]
        left -= len(new)


def _unseen_places(
    found: list[tuple[Mosaic, Defect]], side_px: int, hw: tuple[int, int]
) -> list[tuple[tuple[float, float], Window]]:
    """Where defects go on unseen, the strongest first, and a window around each such place.

    A place that a window before it shows is passed over.
    """
    places: list[tuple[tuple[float, float], Window]] = []
    for mosaic, defect in sorted(found, key=lambda pair: -pair[1].score):
        for at in mosaic.exits(defect.region) if defect.truncated else []:
            if not any(window.shows(at) for _, window in places):
                places.append((at, window_around(at, side_px, hw)))
    return places


def _confidence(field: ConfidenceField | None, at: tuple[float, float]) -> float:
    return 0.0 if field is None else field.confidence_in((int(at[0]), int(at[1]), 1, 1))
