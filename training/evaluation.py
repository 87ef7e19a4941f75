"""Runs a bundle's graphs through STORY 1 and 2 on validation pictures: calibration and figures.

Every figure is taken through the very functions that the service calls; a protocol stands in each
docstring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.bundle import Bundle
from models.detection import Detector
from models.errors import ParameterInvalid
from models.manifest import DetectionParams
from models.steps.fields import ConfidenceField
from models.steps.fusion import contrast
from models.steps.outlines import place_region
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, Synthesizer, Synthetic, find_allowed, synthesize
from training.calibration import coverage, is_bad, judge_parts, limits_of, predictions_of, sweep
from training.data import Dataset, Record
from training.metrics import image_auroc
from training.regions import (
    Predictions,
    best_scores,
    draw_curve,
    look_up_flaws,
    measure_images,
    measure_pixels,
    measure_recall,
    measure_reliability,
    measure_sizes,
    part_predictions,
)

CROPS = (1, 3, 5, 10)
"""The n at which stage-1 coverage is told."""
PROMISES = ("identical", "legal", "inside", "visible")
"""What every synthetic sample is checked for."""


@dataclass(frozen=True)
class Findings:
    """What a detector as it is calibrated shows of pictures, at any score."""

    records: tuple[Record, ...]
    params: DetectionParams
    fields: tuple[ConfidenceField, ...]
    predictions: Predictions


def measure_bundle(
    bundle: Bundle, data: Dataset, samples: int
) -> tuple[Findings, dict[str, float]]:
    """Every figure of both stories on the validation pictures, and what detection found there."""
    found = look_at(data.val, bundle.detector)
    figures = measure_detection(found)
    figures |= evaluate_synthesis(data.val_normals, bundle.synthesizer, count=samples, seed=1)
    return found, rounded(figures)


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """To what the number of pictures can tell."""
    return {name: round(value, 4) for name, value in figures.items()}


def evaluate_detection(records: tuple[Record, ...], detector: Detector) -> dict[str, float]:
    """Coverage, FROC, pixel and part figures of a detector as it is calibrated."""
    return measure_detection(look_at(records, detector))


def look_at(records: tuple[Record, ...], detector: Detector) -> Findings:
    """Detect on every picture: everything large enough that the calibrated crops show."""
    swept = sweep(records, detector)
    fields = tuple(told.field for told in swept)
    return Findings(records, detector.params, fields, predictions_of(swept))


def measure_detection(found: Findings) -> dict[str, float]:
    """Every figure of detection."""
    records, predictions = found.records, found.predictions
    figures = measure_coverage(records, found.fields, found.params)
    figures |= measure_recall(draw_curve(records, predictions))
    figures |= measure_as_calibrated(records, predictions, found.params)
    figures["image_auroc"] = measure_images(records, predictions)
    figures["expected_calibration_error"] = measure_reliability(records, predictions)[0]
    return figures


def measure_coverage(
    records: tuple[Record, ...], fields: Sequence[ConfidenceField], params: DetectionParams
) -> dict[str, float]:
    """Stage-1 coverage at each n with every peak looked into, and image AUROC of the locator.

    `_literal`: by the rule of the n greatest pixels, neighbours or not.
    """
    figures = {}
    for rule, name in (("coverage", ""), ("literal", "_literal")):
        for n in CROPS:
            asked = {"n": n, "min_confidence": 0.0, "peak_rule": rule}
            of_rule = params.model_copy(update=asked)
            figures[f"coverage_at_{n}{name}"] = coverage(records, fields, of_rule)
    strongest = [field.strongest for field in fields]
    figures["locator_image_auroc"] = image_auroc(strongest, [bool(r.flaws) for r in records])
    return figures


def measure_as_calibrated(
    records: tuple[Record, ...], predictions: Predictions, params: DetectionParams
) -> dict[str, float]:
    """What is found, what is drawn, and what becomes of parts, at the detector's own limits."""
    looks = look_up_flaws(records, predictions)
    figures = measure_sizes(looks, params.min_score)
    found = [look.score >= params.min_score for look in looks]
    parted = part_predictions(records, predictions)
    false = [one for _, one, is_true in parted if not is_true and one.score >= params.min_score]
    figures["recall_as_calibrated"] = float(np.mean(found)) if found else 0.0
    figures["false_regions_as_calibrated"] = len(false) / len(records)
    figures |= measure_pixels(records, predictions, params.min_score)
    limits = limits_of(params)
    scores = best_scores(predictions)
    return figures | judge_parts(scores, is_bad(records), [limits] * len(records))


@dataclass
class Tally:
    """What became of the samples that were asked for, each checked again as it is told."""

    synthesizer: Synthesizer
    asked: int = 0
    defects: int = 0
    kept: dict[str, list[bool]] = field(default_factory=lambda: {name: [] for name in PROMISES})
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, normal: Record, sample: Synthetic) -> None:
        """Count a sample."""
        self.asked += 1
        self.defects += len(sample.defects)
        self.rejected += sample.rejected
        for promise, holds in check_promises(normal, sample, self.synthesizer).items():
            self.kept[promise].append(holds)

    def miss(self) -> None:
        """Count a request that gave nothing."""
        self.asked += 1
        self.rejected["unmade"] += self.synthesizer.params.max_attempts

    def figures(self) -> dict[str, float]:
        """The shares so far.

        promise_*: of the samples, those that keep it, 0 where none was made; made: of the requests,
        those that gave a sample. rejection_rate: of all draws, those that failed a check, and by
        reason in rejected_*; `unmade` are the draws of requests that gave nothing.
        """
        asked, rejected = max(self.asked, 1), self.rejected.total()
        draws = max(self.defects + rejected, 1)
        told = {f"promise_{name}": float(np.mean(v or [False])) for name, v in self.kept.items()}
        told |= {"made": len(self.kept["legal"]) / asked, "rejected_per_sample": rejected / asked}
        told["rejection_rate"] = rejected / draws
        return told | {f"rejected_{why}": n / draws for why, n in sorted(self.rejected.items())}


def evaluate_synthesis(
    normals: tuple[Record, ...], synthesizer: Synthesizer, *, count: int, seed: int
) -> dict[str, float]:
    """The promises of samples with one defect, normal pictures and labels in turn: see Tally."""
    tally = Tally(synthesizer)
    for index in range(count):
        normal = normals[index % len(normals)]
        label = synthesizer.labels[index % len(synthesizer.labels)]
        request = SynthesisRequest(seed=seed + index, label=label)
        try:
            tally.add(normal, next(synthesize(Picture(normal.image), request, synthesizer)))
        except ParameterInvalid:
            tally.miss()
    return tally.figures()


def check_promises(record: Record, sample: Synthetic, synthesizer: Synthesizer) -> dict[str, bool]:
    """Whether a sample is identical outside its mask, and its mask legal, inside and visible.

    Where a defect may lie and how it stands out are computed as synthesis computes them.
    """
    allowed = find_allowed(record.image, None, synthesizer.params)
    shapes = synthesizer.params.shapes
    return {
        "identical": bool(np.array_equal(sample.pixels[~sample.mask], record.image[~sample.mask])),
        "legal": sample.mask.dtype == np.bool_
        and sample.mask.shape == record.image.shape[:2]
        and bool(sample.mask.any()),
        "inside": not bool((sample.mask & ~allowed).any()),
        "visible": all(
            contrast(record.image, sample.pixels, place_region(d.region, (0, 0), sample.mask.shape))
            >= shapes[d.label].min_contrast
            for d in sample.defects
        ),
    }
