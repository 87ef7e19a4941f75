"""What the segmenter saw, as regions with a label and a score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.manifest import DetectionParams
from models.steps.crops import Window
from models.steps.extents import Extent, measure_extent
from models.steps.fields import ConfidenceField
from models.steps.gaps import bridge_gaps
from models.steps.mosaics import Mosaic
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.zones import Scope


@dataclass(frozen=True)
class Defect:
    """One connected region of the picture, however many crops saw it.

    score: geometric mean of the segmenter's mean defect probability over the region and the
    locator's greatest confidence in it, so both must agree.
    """

    label: str
    score: float
    region: Region
    truncated: bool
    crops: tuple[int, ...]

    @cached_property
    def extent(self) -> Extent:
        """How long and how wide it is; measured when first asked for."""
        return measure_extent(self.region.mask)


@dataclass(frozen=True)
class Standard:
    """What regions of one picture are judged by.

    field: None where the segmenter is asked alone; the score is then its mean probability.
    scope: None where the whole picture counts.
    """

    labels: tuple[str, ...]
    params: DetectionParams
    field: ConfidenceField | None
    scope: Scope | None


def find_defects(mosaic: Mosaic, windows: list[Window], standard: Standard) -> list[Defect]:
    """The regions of one mosaic that are looked at: certain ones, and those in doubt.

    A region counts from `doubt_score` and `min_area_px` on, where enough of it lies in the zones. A
    least score of 0 asks for every segmented region, the small ones too.
    """
    params = standard.params
    is_defect = bridge_diagonals(1.0 - mosaic.scores[0] >= params.mask_threshold)
    is_defect = bridge_gaps(is_defect, params.merge_gap_px, mosaic.scores[1:])
    defects = []
    for region in find_regions(is_defect, offset_xy=(mosaic.x, mosaic.y)):
        if region.area_px < params.min_area_px and params.min_score > 0.0:
            continue
        score, label = _judge(region, mosaic, standard.field)
        is_inside = standard.scope is None or standard.scope.holds(region)
        if score >= params.doubt_score and is_inside:
            truncated = mosaic.goes_on_unseen(region)
            ranks = _seen_by(region, windows)
            defects.append(Defect(standard.labels[label], score, region, truncated, ranks))
    return defects


def _judge(region: Region, mosaic: Mosaic, field: ConfidenceField | None) -> tuple[float, int]:
    """Score and label index of a region."""
    means = mosaic.scores_in(region).mean(axis=1)
    score = 1.0 - means[0]
    if field is not None:
        score = np.sqrt(score * field.confidence_in(region.box))
    return min(max(float(score), 0.0), 1.0), int(np.argmax(means[1:]))


def _seen_by(region: Region, windows: list[Window]) -> tuple[int, ...]:
    """Ranks of the crops whose window overlaps the region's box."""
    x, y, width, height = region.box
    return tuple(
        rank
        for rank, w in enumerate(windows, start=1)
        if w.x < x + width and x < w.x + w.side_px and w.y < y + height and y < w.y + w.side_px
    )
