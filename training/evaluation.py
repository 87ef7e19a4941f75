"""Runs a bundle's graphs through STORY 1 and 2 on validation pictures: calibration and figures.

Every figure is taken through the very functions that the service calls; a protocol stands in each
docstring.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from models.bundle import Bundle
from models.detection import Detection, Detector, detect, predict_field
from models.errors import ParameterInvalid
from models.steps.crops import Window, window_around
from models.steps.fields import ConfidenceField
from models.steps.fusion import contrast
from models.steps.outlines import Region, place_region
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, Synthesizer, Synthetic, find_allowed, synthesize
from training.data import Record
from training.metrics import (
    FALSE_REGIONS,
    Predicted,
    froc,
    image_auroc,
    is_covered,
    is_found,
    pixel_average_precision,
    recall_at,
)

CROPS = (1, 3, 5, 10)
"""The n at which stage-1 coverage is told."""
MASK_THRESHOLDS = (0.2, 0.3, 0.4, 0.5)
"""Defect probabilities from which a pixel may be called defect."""
ANY_SCORE = 1e-9
"""A score that every region has; at 0 the story would drop its area limit too."""
SIZE_BINS_PX = (0, 16, 32, 64, 128, 4096)
"""Edges of the bins of defect size, by longest side."""
PROMISES = ("identical", "legal", "inside", "visible")
"""What every synthetic sample is checked for."""


@dataclass(frozen=True)
class Calibration:
    """Thresholds chosen on validation pictures."""

    min_confidence: float
    min_score: float
    mask_threshold: float


def evaluate_detection(records: tuple[Record, ...], detector: Detector) -> dict[str, float]:
    """Coverage, FROC, pixel and image figures of a detector as it is calibrated.

    FROC sweeps the score over everything large enough that the calibrated crops show.
    """
    figures = measure_coverage(records, detector)
    swept = sweep(records, detector)
    per_image, recall, _ = froc(_truths(records), _predictions(swept))
    for most in FALSE_REGIONS:
        figures[f"recall_at_{most:g}_false_regions"] = recall_at(per_image, recall, most)
    figures |= measure_sizes(records, swept, detector.params.min_score)
    figures |= measure_pictures(records, swept)
    return figures


def calibrate(records: tuple[Record, ...], detector: Detector) -> Calibration:
    """Thresholds for a service that should neither miss nor cry wolf.

    min_confidence: the greatest that costs at most one point of stage-1 coverage at n, or 0.
    mask_threshold and min_score: the best F1 of regions, over all pictures; of equals the greatest.
    """
    fields = [predict_field(record.image, detector.locator) for record in records]
    full = coverage(records, fields, detector, n=detector.params.n, min_confidence=0.0)
    candidates = (0.0, *np.linspace(0.01, 0.6, 60))
    kept = [
        c
        for c in candidates
        if coverage(records, fields, detector, n=detector.params.n, min_confidence=float(c))
        >= full - 0.01
    ]
    min_confidence = round(float(max(kept)), 3)
    looking = detector.with_params(min_confidence=min_confidence)
    judged = [(*best_f1(records, with_threshold(looking, t)), t) for t in MASK_THRESHOLDS]
    _, mask_threshold, min_score = max((f1, t, score) for f1, score, t in judged)
    return Calibration(min_confidence, min_score, mask_threshold)


def best_f1(records: tuple[Record, ...], detector: Detector) -> tuple[float, float]:
    """The greatest F1 of regions over all pictures, and the score it needs (a little less)."""
    per_image, recall, thresholds = froc(_truths(records), _predictions(sweep(records, detector)))
    if not len(thresholds):
        return 0.0, 0.5
    total = sum(len(record.flaws) for record in records)
    hits, false = recall * total, per_image * len(records)
    f1 = 2 * hits / np.maximum(hits + false + total, 1e-9)
    best = int(np.argmax(f1))
    return round(float(f1[best]), 6), round(max(0.0, float(thresholds[best]) - 5e-4), 3)


def sweep(records: tuple[Record, ...], detector: Detector) -> list[Detection]:
    """What the detector shows at any score; the area limit still holds."""
    anything = detector.with_params(min_score=ANY_SCORE)
    return [detect(Picture(record.image), anything) for record in records]


def with_threshold(detector: Detector, mask_threshold: float) -> Detector:
    """A detector whose masks begin at another probability."""
    params = detector.params.model_copy(update={"mask_threshold": mask_threshold})
    return replace(detector, params=params)


def coverage(
    records: tuple[Record, ...],
    fields: list[ConfidenceField],
    detector: Detector,
    *,
    n: int,
    min_confidence: float,
) -> float:
    """Share of defects of which one of at most n crops shows at least half of the pixels."""
    shown = [
        is_covered(flaw.region, windows)
        for record, field in zip(records, fields, strict=True)
        if record.flaws
        for windows in [_windows(field, detector, n, min_confidence)]
        for flaw in record.flaws
    ]
    return float(np.mean(shown)) if shown else 0.0


def measure_coverage(records: tuple[Record, ...], detector: Detector) -> dict[str, float]:
    """Stage-1 coverage at each n with every peak looked into, and image AUROC of the locator."""
    fields = [predict_field(record.image, detector.locator) for record in records]
    figures = {
        f"coverage_at_{n}": coverage(records, fields, detector, n=n, min_confidence=0.0)
        for n in CROPS
    }
    strongest = [float(field.logits.max()) for field in fields]
    figures["locator_image_auroc"] = image_auroc(strongest, [bool(r.flaws) for r in records])
    return figures


def measure_sizes(
    records: tuple[Record, ...], swept: list[Detection], min_score: float
) -> dict[str, float]:
    """Share found in bins of the defect's longest side, and false regions, as calibrated."""
    found: dict[int, list[bool]] = {}
    false = 0
    for record, detection in zip(records, swept, strict=True):
        kept = [d.region for d in detection.defects if d.score >= min_score]
        for flaw in record.flaws:
            hit = any(is_found(flaw.region, region) for region in kept)
            found.setdefault(int(np.digitize(flaw.side_px, SIZE_BINS_PX[1:-1])), []).append(hit)
        truths = [flaw.region for flaw in record.flaws]
        false += sum(not any(is_found(t, region) for t in truths) for region in kept)
    figures = {
        f"recall_{SIZE_BINS_PX[bin_]}_to_{SIZE_BINS_PX[bin_ + 1]}_px": float(np.mean(hits))
        for bin_, hits in sorted(found.items())
    }
    figures["recall_as_calibrated"] = float(np.mean([h for hits in found.values() for h in hits]))
    figures["false_regions_as_calibrated"] = false / len(records)
    return figures


def measure_pictures(records: tuple[Record, ...], swept: list[Detection]) -> dict[str, float]:
    """Image AUROC of the best score, and pixel AP of the found regions."""
    best = [max((d.score for d in detection.defects), default=0.0) for detection in swept]
    scores, truths = [], []
    for record, detection in zip(records, swept, strict=True):
        canvas = np.zeros(record.labels.shape, np.float32)
        for defect in reversed(detection.defects):
            region = defect.region
            height, width = region.mask.shape
            window = canvas[region.y : region.y + height, region.x : region.x + width]
            window[region.mask] = defect.score
        # Every fourth pixel of each axis: AP over 150 MP would need more memory than it tells.
        scores.append(canvas[::4, ::4].ravel())
        truths.append((record.labels[::4, ::4] > 0).ravel())
    return {
        "image_auroc": image_auroc(best, [bool(r.flaws) for r in records]),
        "pixel_ap": pixel_average_precision(np.concatenate(scores), np.concatenate(truths)),
    }


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


def with_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """A bundle whose detector uses other thresholds."""
    detector = bundle.detector.with_params(
        min_confidence=calibration.min_confidence, min_score=calibration.min_score
    )
    return replace(bundle, detector=with_threshold(detector, calibration.mask_threshold))


def _windows(
    field: ConfidenceField, detector: Detector, n: int, min_confidence: float
) -> list[Window]:
    params = detector.params
    peaks = field.peaks(n, min_confidence=min_confidence, radius_px=params.reach_px)
    return [window_around((p.x, p.y), params.crop_size_px, field.image_hw) for p in peaks]


def _truths(records: tuple[Record, ...]) -> list[list[Region]]:
    return [[flaw.region for flaw in record.flaws] for record in records]


def _predictions(swept: list[Detection]) -> list[list[Predicted]]:
    return [[Predicted(d.region, d.score) for d in detection.defects] for detection in swept]
