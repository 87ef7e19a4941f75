"""Thresholds chosen on validation groups for stated rates of error, and what they cost there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from models.bundle import Bundle
from models.detection import Detection, Detector, detect
from models.manifest import DetectionParams
from models.steps.crops import Window, window_around
from models.steps.fields import ConfidenceField
from models.steps.pictures import Picture
from training.data import Record
from training.metrics import Predicted, is_covered
from training.recipes import CalibrationRecipe
from training.regions import Curve, Predictions, best_scores, draw_curve
from training.tapes import record_detector

MASK_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Defect probabilities from which a pixel may be called defect."""
ANY_SCORE = 1e-9
"""A score that every region has; at 0 the story would drop its area limit too."""
CONFIDENCES = (0.0, *(round(0.01 * step, 2) for step in range(1, 61)))
"""What may be asked of a peak."""


@dataclass(frozen=True)
class Limits:
    """Two limits of a part's best score: below `review` surely good, from `least` on surely bad.

    Between them somebody looks again.
    """

    review: float
    least: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds chosen on validation pictures."""

    min_confidence: float
    min_score: float
    review_score: float
    mask_threshold: float


@dataclass(frozen=True)
class Sweep:
    """What a detector shows of pictures at every mask threshold, all n peaks looked into."""

    records: tuple[Record, ...]
    detector: Detector
    fields: tuple[ConfidenceField, ...]
    told: dict[float, tuple[Detection, ...]]

    def predictions(self, mask_threshold: float, min_confidence: float) -> list[list[Predicted]]:
        """The regions that a crop of a peak so confident shows."""
        return [
            [
                Predicted(defect.region, defect.score)
                for defect in told.defects
                if any(told.crops[rank - 1].confidence >= min_confidence for rank in defect.crops)
            ]
            for told in self.told[mask_threshold]
        ]

    def only(self, is_kept: NDArray[np.bool_]) -> Sweep:
        """The same of some of the pictures."""
        chosen = np.flatnonzero(is_kept)
        return replace(
            self,
            records=tuple(self.records[i] for i in chosen),
            fields=tuple(self.fields[i] for i in chosen),
            told={t: tuple(told[i] for i in chosen) for t, told in self.told.items()},
        )


def sweep_thresholds(records: tuple[Record, ...], detector: Detector) -> Sweep:
    """Look at every picture at every mask threshold; what the graphs are asked twice runs once."""
    taped, tapes = record_detector(detector.with_params(min_confidence=0.0, min_score=ANY_SCORE))
    told: dict[float, list[Detection]] = {threshold: [] for threshold in MASK_THRESHOLDS}
    for record in records:
        for tape in tapes:
            tape.erase()
        for threshold, detections in told.items():
            detections.append(detect(Picture(record.image), with_threshold(taped, threshold)))
            for tape in tapes:
                tape.rewind()
    fields = tuple(one.field for one in told[MASK_THRESHOLDS[0]])
    return Sweep(records, detector, fields, {t: tuple(some) for t, some in told.items()})


def calibrate(swept: Sweep, goals: CalibrationRecipe) -> Calibration:
    """Thresholds for a service that misses no more than is stated, and then cries wolf least.

    Each in turn: see `choose_mask_threshold`, `choose_confidence` and `choose_limits`.
    """
    mask_threshold = choose_mask_threshold(swept, goals)
    min_confidence = choose_confidence(swept, mask_threshold, goals)
    scores = best_scores(swept.predictions(mask_threshold, min_confidence))
    limits = choose_limits(scores, is_bad(swept.records), goals)
    return Calibration(min_confidence, limits.least, limits.review, mask_threshold)


def choose_mask_threshold(swept: Sweep, goals: CalibrationRecipe) -> float:
    """The one of the best F1 of regions, of equals the greatest.

    Only of those that leave no more bad parts without any region than may be missed or, where none
    does, than the best of them does.
    """

    def rank(mask_threshold: float) -> tuple[int, float, float]:
        predictions = swept.predictions(mask_threshold, 0.0)
        f1 = best_f1(swept.records, draw_curve(swept.records, predictions))
        silent = max(count_silent(swept.records, predictions) - _may_miss(swept, goals), 0)
        return -silent, f1, mask_threshold

    return max(MASK_THRESHOLDS, key=rank)


def choose_confidence(swept: Sweep, mask_threshold: float, goals: CalibrationRecipe) -> float:
    """The greatest confidence to ask of a peak: fewer crops, at a stated price.

    It costs no more than `lost_share` of the coverage, and leaves no more bad parts without any
    region than may be missed: no limit of a score could find them again.
    """

    def covered(min_confidence: float) -> float:
        params = swept.detector.with_params(min_confidence=min_confidence).params
        return coverage(swept.records, swept.fields, params)

    def silent(min_confidence: float) -> int:
        return count_silent(swept.records, swept.predictions(mask_threshold, min_confidence))

    least = covered(0.0) - goals.lost_share - 1e-9
    most = max(silent(0.0), _may_miss(swept, goals))
    return max(c for c in CONFIDENCES if covered(c) >= least and silent(c) <= most)


def choose_limits(
    scores: NDArray[np.float64], is_bad: NDArray[np.bool_], goals: CalibrationRecipe
) -> Limits:
    """The two limits of a part's best score that keep to the stated rates.

    review: the greatest below which lies no more than `missed_share` of the bad parts; parts that
    show nothing at all are missed whatever the limit, and count. least: the smallest from which on
    lies no more than `rejected_share` of the good parts. Where one limit keeps to both it is taken
    midway, and nobody needs to look again. Limits lie midway between the scores of two parts.
    """
    bad, good = np.sort(scores[is_bad]), np.sort(scores[~is_bad])
    missed = max(int(goals.missed_share * len(bad)), int((bad == 0.0).sum()))
    review = _midway_below(bad[missed], scores) if missed < len(bad) else 1.0
    rejected = int(goals.rejected_share * len(good))
    least = _midway_above(good[-1 - rejected], scores) if rejected < len(good) else 0.0
    if least <= review:
        least = review = (least + review) / 2
    return Limits(round(float(review), 4), round(float(least), 4))


def judge_parts(
    scores: NDArray[np.float64], is_bad: NDArray[np.bool_], limits: Sequence[Limits]
) -> dict[str, float]:
    """What becomes of parts, each by its own limits.

    false_accept_rate: of the bad parts those surely good; false_reject_rate: of the good parts
    those surely bad; look_again_share: of all parts those between.
    """
    is_sure_ok = scores < np.array([one.review for one in limits])
    is_sure_ng = scores >= np.array([one.least for one in limits])
    return {
        "false_accept_rate": _share(is_sure_ok[is_bad]),
        "false_reject_rate": _share(is_sure_ng[~is_bad]),
        "look_again_share": _share(~is_sure_ok & ~is_sure_ng),
    }


def cross_judge(swept: Sweep, goals: CalibrationRecipe, *, folds: int = 5) -> dict[str, float]:
    """What `judge_parts` tells where each group's thresholds come from the other groups.

    Groups are dealt into folds of about equal size; a part's thresholds never saw its group.
    """
    groups = np.array([record.group for record in swept.records])
    folds = min(folds, len(set(groups)))
    if folds < 2:
        return {}
    scores, limits = np.zeros(len(groups)), [Limits(0.0, 0.0)] * len(groups)
    for _, held_out in GroupKFold(folds).split(groups, groups=groups):
        is_held = np.isin(np.arange(len(groups)), held_out)
        chosen = calibrate(swept.only(~is_held), goals)
        told = swept.only(is_held).predictions(chosen.mask_threshold, chosen.min_confidence)
        scores[is_held] = best_scores(told)
        for index in held_out:
            limits[index] = Limits(chosen.review_score, chosen.min_score)
    figures = judge_parts(scores, is_bad(swept.records), limits)
    return {f"{name}_cross": value for name, value in figures.items()}


def sweep(records: Sequence[Record], detector: Detector) -> list[Detection]:
    """What the detector shows at any score; the area limit still holds."""
    anything = detector.with_params(min_score=ANY_SCORE)
    return [detect(Picture(record.image), anything) for record in records]


def with_threshold(detector: Detector, mask_threshold: float) -> Detector:
    """A detector whose masks begin at another probability."""
    params = detector.params.model_copy(update={"mask_threshold": mask_threshold})
    return replace(detector, params=params)


def with_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """A bundle whose detector uses other thresholds."""
    params = bundle.detector.params.model_copy(update=asdict(calibration))
    return replace(bundle, detector=replace(bundle.detector, params=params))


def coverage(
    records: Sequence[Record],
    fields: Sequence[ConfidenceField],
    params: DetectionParams,
) -> float:
    """Share of defects of which one of the crops shows at least half of the pixels."""
    shown = [
        is_covered(flaw.region, windows)
        for record, field in zip(records, fields, strict=True)
        if record.flaws
        for windows in [_windows(field, params)]
        for flaw in record.flaws
    ]
    return float(np.mean(shown)) if shown else 0.0


def limits_of(params: DetectionParams) -> Limits:
    """The limits of a detector; without a limit for looking again nobody does."""
    return Limits(params.doubt_score, params.min_score)


def predictions_of(swept: Sequence[Detection]) -> list[list[Predicted]]:
    """The regions of detections, with their scores."""
    return [[Predicted(d.region, d.score) for d in told.defects] for told in swept]


def is_bad(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Whether each picture shows a defect."""
    return np.array([bool(record.flaws) for record in records], bool)


def count_silent(records: Sequence[Record], predictions: Predictions) -> int:
    """How many bad parts show no region: missed at any limit of the score."""
    return int((best_scores(predictions)[is_bad(records)] == 0.0).sum())


def best_f1(records: Sequence[Record], curve: Curve) -> float:
    """The greatest F1 of regions over all pictures, at any score."""
    total = sum(len(record.flaws) for record in records)
    hits, false = curve.recall * total, curve.per_image * len(records)
    f1 = 2 * hits / np.maximum(hits + false + total, 1e-9)
    return round(float(f1.max(initial=0.0)), 6)


def _may_miss(swept: Sweep, goals: CalibrationRecipe) -> int:
    return int(goals.missed_share * is_bad(swept.records).sum())


def _windows(field: ConfidenceField, params: DetectionParams) -> list[Window]:
    peaks = field.peaks(
        params.n,
        min_confidence=params.min_confidence,
        radius_px=params.reach_px,
        rule=params.peak_rule,
    )
    return [window_around((p.x, p.y), params.crop_size_px, field.image_hw) for p in peaks]


def _midway_below(score: float, scores: NDArray[np.float64]) -> float:
    return (score + float(scores[scores < score].max(initial=0.0))) / 2


def _midway_above(score: float, scores: NDArray[np.float64]) -> float:
    return (score + float(scores[scores > score].min(initial=1.0))) / 2


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0
