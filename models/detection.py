"""STORY 1: picture -> confidence field -> peaks -> crops -> masks -> outlines.

Source: patent "A defect recognition method, device, electronic equipment and storage medium",
claim 1: a keypoint model's confidence matrix, the n most confident places, squares around them,
a segmenter on each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.arrays import RgbImage
from models.errors import ParameterInvalid
from models.graphs import Locator, Segmenter
from models.manifest import DetectionParams, Limits
from models.steps.crops import Window, cut_crop, resize_crop, window_around
from models.steps.fields import ConfidenceField
from models.steps.heatmap import Peak
from models.steps.mosaics import Mosaic, lay_mosaics
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture, require_size

BATCH = 16
"""Most crops in one run of the segmenter: bounds memory at n = 64."""


@dataclass(frozen=True)
class Detector:
    """Everything story 1 is told with."""

    locator: Locator
    segmenter: Segmenter
    labels: tuple[str, ...]
    params: DetectionParams
    limits: Limits

    def with_params(
        self,
        *,
        n: int | None = None,
        crop_size_px: int | None = None,
        min_confidence: float | None = None,
        min_score: float | None = None,
    ) -> Detector:
        """The same detector with other parameters; None keeps the manifest's.

        Errors: ParameterInvalid where one is out of the manifest's own bounds.
        """
        asked = {
            "n": n,
            "crop_size_px": crop_size_px,
            "min_confidence": min_confidence,
            "min_score": min_score,
        }
        changes = {name: value for name, value in asked.items() if value is not None}
        return replace(self, params=_with_changes(self.params, changes))


@dataclass(frozen=True)
class Crop:
    """A square that was looked into; `rank` counts from 1, the most confident first."""

    rank: int
    center_xy: tuple[float, float]
    confidence: float
    box: tuple[int, int, int, int]


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


@dataclass(frozen=True)
class Detection:
    """What story 1 ends with."""

    verdict: Literal["ok", "ng"]
    crops: tuple[Crop, ...]
    defects: tuple[Defect, ...]
    budget_exhausted: bool
    field: ConfidenceField
    timings_ms: dict[str, float]


def detect(picture: Picture, detector: Detector) -> Detection:
    """Find the defects of a picture, strongest first.

    Errors: PictureTooSmall, PictureTooLarge by the bundle's limits.
    """
    require_size(picture.hw, **detector.limits.model_dump())
    image = picture.as_rgb8()
    started = time.perf_counter()
    field = predict_field(image, detector.locator)
    peaks, budget_exhausted = strongest_peaks(field, detector.params)
    located = time.perf_counter()
    windows = [window_around((p.x, p.y), detector.params.crop_size_px, picture.hw) for p in peaks]
    scores = segment_crops([cut_crop(image, w) for w in windows], detector)
    segmented = time.perf_counter()
    mosaics = lay_mosaics(windows, scores, picture.hw)
    found = [d for mosaic in mosaics for d in outline_defects(mosaic, windows, field, detector)]
    outlined = time.perf_counter()
    return Detection(
        verdict="ng" if found else "ok",
        crops=tuple(
            Crop(rank, (peak.x, peak.y), peak.confidence, window.box)
            for rank, (peak, window) in enumerate(zip(peaks, windows, strict=True), start=1)
        ),
        defects=tuple(sorted(found, key=lambda defect: -defect.score)),
        budget_exhausted=budget_exhausted,
        field=field,
        timings_ms={
            "locate": 1e3 * (located - started),
            "segment": 1e3 * (segmented - located),
            "outline": 1e3 * (outlined - segmented),
        },
    )


def predict_field(image: RgbImage, locator: Locator) -> ConfidenceField:
    """Run the locator on a whole picture, its far edges repeated up to the multiple it needs."""
    height, width = image.shape[:2]
    down, right = -height % locator.multiple_px, -width % locator.multiple_px
    padded = image
    if down or right:
        padded = np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE))
    (output,) = locator.graph(image=padded[None])
    rows, columns = -(-height // locator.stride_px), -(-width // locator.stride_px)
    inside = output[0, :, :rows, :columns]
    return ConfidenceField(
        np.ascontiguousarray(inside[0]), inside[1:3], locator.stride_px, (height, width)
    )


def strongest_peaks(field: ConfidenceField, params: DetectionParams) -> tuple[list[Peak], bool]:
    """The n peaks to look into, and whether more were strong enough.

    A peak is passed over where a crop around a stronger one already shows even the largest defect
    there whole.
    """
    peaks = field.peaks(
        params.n + 1,
        min_confidence=params.min_confidence,
        radius_px=params.reach_px,
        rule=params.peak_rule,
    )
    chosen = sorted(peaks[: params.n], key=lambda peak: -peak.confidence)
    return chosen, len(peaks) > params.n


def segment_crops(crops: list[RgbImage], detector: Detector) -> NDArray[np.float32]:
    """Probabilities of background and labels: N crops (S, S, 3) -> (N, 1 + labels, S, S)."""
    side_px, crop_px = detector.segmenter.side_px, detector.params.crop_size_px
    scores = np.empty((len(crops), 1 + len(detector.labels), crop_px, crop_px), np.float32)
    for start in range(0, len(crops), BATCH):
        batch = np.stack([resize_crop(crop, side_px) for crop in crops[start : start + BATCH]])
        (logits,) = detector.segmenter.graph(image=batch)
        for index, one in enumerate(_softmax(logits), start=start):
            scores[index] = one if side_px == crop_px else _resize_scores(one, crop_px)
    return scores


def outline_defects(
    mosaic: Mosaic, windows: list[Window], field: ConfidenceField, detector: Detector
) -> list[Defect]:
    """The regions of one mosaic that the limits call defects, in full-picture coordinates.

    A least score of 0 asks for every segmented region, the small ones too.
    """
    params = detector.params
    is_defect = bridge_diagonals(1.0 - mosaic.scores[0] >= params.mask_threshold)
    defects = []
    for region in find_regions(is_defect, offset_xy=(mosaic.x, mosaic.y)):
        score, label = _judge(region, mosaic, field)
        is_large = region.area_px >= params.min_area_px or params.min_score == 0.0
        if score >= params.min_score and is_large:
            defects.append(
                Defect(
                    label=detector.labels[label],
                    score=score,
                    region=region,
                    truncated=mosaic.goes_on_unseen(region),
                    crops=_seen_by(region, windows),
                )
            )
    return defects


def _with_changes(params: DetectionParams, changes: dict[str, float]) -> DetectionParams:
    """`model_copy` would not look at the values."""
    try:
        return DetectionParams.model_validate(params.model_dump() | changes)
    except ValidationError as error:
        (first, *_) = error.errors()
        raise ParameterInvalid(str(first["loc"][0]), first["msg"]) from None


def _judge(region: Region, mosaic: Mosaic, field: ConfidenceField) -> tuple[float, int]:
    """Score and label index of a region."""
    means = mosaic.scores_in(region).mean(axis=1)
    score = float(np.sqrt((1.0 - means[0]) * field.confidence_in(region.box)))
    return min(max(score, 0.0), 1.0), int(np.argmax(means[1:]))


def _seen_by(region: Region, windows: list[Window]) -> tuple[int, ...]:
    """Ranks of the crops whose window overlaps the region's box."""
    x, y, width, height = region.box
    return tuple(
        rank
        for rank, w in enumerate(windows, start=1)
        if w.x < x + width and x < w.x + w.side_px and w.y < y + height and y < w.y + w.side_px
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def _resize_scores(scores: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    size = (side_px, side_px)
    return np.stack([cv2.resize(s, size, interpolation=cv2.INTER_LINEAR) for s in scores])
