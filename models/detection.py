"""STORY 1: picture -> confidence field -> peaks -> crops -> masks -> outlines.

Source: patent "A defect recognition method, device, electronic equipment and storage medium",
claim 1: a keypoint model's confidence matrix, the n most confident places, squares around them,
a segmenter on each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypedDict, Unpack

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.arrays import RgbImage
from models.errors import ParameterInvalid
from models.findings import Defect, Standard
from models.graphs import Locator, Segmenter
from models.inspection import Rule, Zones, require_rules
from models.locating import predict_field
from models.manifest import DetectionParams, Limits, ObjectRule
from models.rules import Decision, Tolerated, Verdict, judge
from models.steps.crops import resize_crop
from models.steps.fields import ConfidenceField
from models.steps.heatmap import Peak
from models.steps.objects import find_object
from models.steps.pictures import Picture, require_size
from models.steps.stopwatch import Stopwatch
from models.steps.zones import Scope, is_everywhere, needs_object, shrink_for_object
from models.surroundings import Crop, look_into, place_crops

BATCH = 16
"""Most crops in one run of the segmenter: bounds memory at n = 64."""


class Asked(TypedDict, total=False):
    """What a request may ask for in place of the manifest's own; None keeps that."""

    n: int | None
    crop_size_px: int | None
    min_confidence: float | None
    min_score: float | None
    review_score: float | None
    extra_crops: int | None
    merge_gap_px: int | None
    zones: Zones | None
    rules: tuple[Rule, ...] | None


@dataclass(frozen=True)
class Detector:
    """Everything story 1 is told with."""

    locator: Locator
    segmenter: Segmenter
    labels: tuple[str, ...]
    params: DetectionParams
    limits: Limits
    object_rule: ObjectRule = field(default_factory=partial(ObjectRule, threshold="none"))
    mm_per_px: float | None = None

    def with_params(self, **asked: Unpack[Asked]) -> Detector:
        """The same detector with other parameters.

        Who asks for n without `extra_crops` gets n crops at most. A manifest's `review_score` above
        the `min_score` that is asked for has no effect.

        Errors: ParameterInvalid where one is out of the manifest's own bounds.
        """
        changes = {name: value for name, value in asked.items() if value is not None}
        if "n" in changes:
            changes.setdefault("extra_crops", 0)
        params = _with_changes(self.params, changes)
        if "review_score" in changes and params.doubt_score != params.review_score:
            raise ParameterInvalid("review_score", "is above min_score")
        try:
            require_rules(params.rules, self.labels, self.mm_per_px)
        except ValueError as error:
            raise ParameterInvalid("rules", str(error)) from None
        return replace(self, params=params)

    def at_scale(self, mm_per_px: float) -> Detector:
        """The same detector for a camera of another scale."""
        return replace(self, mm_per_px=mm_per_px)


@dataclass(frozen=True)
class Detection:
    """What story 1 ends with."""

    verdict: Verdict
    decision: Decision
    crops: tuple[Crop, ...]
    defects: tuple[Defect, ...]
    tolerated: tuple[Tolerated, ...]
    budget_exhausted: bool
    field: ConfidenceField
    timings_ms: dict[str, float]


def detect(picture: Picture, detector: Detector, *, wants_matrix: bool = False) -> Detection:
    """Find the defects of a picture, strongest first.

    wants_matrix: the field's `matrix()` will be asked for; without, a heatmap may leave its graph
    as peaks alone, of which a coarser matrix would be drawn. The defects are the same.

    Errors: PictureTooSmall, PictureTooLarge by the bundle's limits.
    """
    require_size(picture.hw, **detector.limits.model_dump())
    image, params = picture.as_rgb8(), detector.params
    watch = Stopwatch("locate", "segment", "outline")
    with watch.time("locate"):
        scope = lay_zones(image, detector)
        needs_all = scope is not None or params.peak_rule == "literal"
        field = predict_field(image, detector.locator, is_dense=wants_matrix or needs_all)
        peaks, budget_exhausted = strongest_peaks(_looked_at(field, scope), params)
    crops = place_crops(peaks, params.crop_size_px, picture.hw)
    standard = Standard(detector.labels, params, field, scope)
    crops, found = look_into(
        image, crops, standard, partial(segment_crops, detector=detector), watch
    )
    judgement = judge(found, params, detector.mm_per_px)
    return Detection(
        verdict=judgement.verdict,
        decision=judgement.decision,
        crops=tuple(crops),
        defects=judgement.defects,
        tolerated=judgement.tolerated,
        budget_exhausted=budget_exhausted,
        field=field,
        timings_ms=watch.timings_ms,
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


def lay_zones(image: RgbImage, detector: Detector) -> Scope | None:
    """Where in a picture defects are looked for; None for everywhere."""
    zones, image_hw = detector.params.zones, image.shape[:2]
    if is_everywhere(zones):
        return None
    if not needs_object(zones):
        return Scope(zones, image_hw)
    rule = detector.object_rule.model_dump()
    return Scope(zones, image_hw, find_object(shrink_for_object(image), **rule))


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


def _looked_at(field: ConfidenceField, scope: Scope | None) -> ConfidenceField:
    if scope is None:
        return field
    return field.within(scope.cells)


def _with_changes(params: DetectionParams, changes: dict[str, object]) -> DetectionParams:
    """`model_copy` would not look at the values."""
    try:
        return DetectionParams.model_validate(params.model_dump() | changes)
    except ValidationError as error:
        (first, *_) = error.errors()
        name, *place = map(str, first["loc"])
        reason = f"{'.'.join(place)}: {first['msg']}" if place else first["msg"]
        raise ParameterInvalid(name, reason) from None


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def _resize_scores(scores: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    size = (side_px, side_px)
    return np.stack([cv2.resize(s, size, interpolation=cv2.INTER_LINEAR) for s in scores])
