"""Figures of predicted regions against annotated ones, whoever predicted them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import Flaw, Record
from training.metrics import (
    FALSE_REGIONS,
    Predicted,
    ScoreBin,
    calibration_error,
    froc,
    image_auroc,
    is_found,
    recall_at,
    score_at,
)

Predictions = Sequence[Sequence[Predicted]]
"""The regions of each picture, at any score."""

SIZE_BINS_PX = (0, 16, 32, 64, 128, 4096)
"""Edges of the bins of defect size, by longest side."""
SHARE_BINS = {
    "under_0.05_percent": (0.0, 5e-4),
    "0.05_to_0.2_percent": (5e-4, 2e-3),
    "over_0.2_percent": (2e-3, 1.1),
}
"""Bins of defect size by share of the picture's pixels: at least, and less than."""


@dataclass(frozen=True)
class Curve:
    """FROC: false regions per image, share of defects found and score, by falling score."""

    per_image: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]

    def recall_at(self, most: float) -> float:
        """The share of defects found at up to `most` false regions per image."""
        return recall_at(self.per_image, self.recall, most)

    def score_at(self, most: float) -> float:
        """The least score that keeps to `most` false regions per image."""
        return score_at(self.per_image, self.scores, most)


@dataclass(frozen=True)
class Look:
    """An annotated defect and the score of the best region that finds it, 0 where none does."""

    record: Record
    flaw: Flaw
    score: float

    @property
    def image_share(self) -> float:
        """Share of the picture's pixels that the defect covers."""
        return self.flaw.region.area_px / self.record.labels.size


def draw_curve(records: Sequence[Record], predictions: Predictions) -> Curve:
    """The FROC of all pictures, normal ones too."""
    return Curve(*froc([[f.region for f in record.flaws] for record in records], predictions))


def measure_recall(curve: Curve) -> dict[str, float]:
    """Share of defects found at each allowance of false regions per image."""
    return {f"recall_at_{most:g}_false_regions": curve.recall_at(most) for most in FALSE_REGIONS}


def look_up_flaws(records: Sequence[Record], predictions: Predictions) -> list[Look]:
    """Every annotated defect and how surely it is found."""
    return [
        Look(
            record,
            flaw,
            max((p.score for p in predicted if is_found(flaw.region, p.region)), default=0.0),
        )
        for record, predicted in zip(records, predictions, strict=True)
        for flaw in record.flaws
    ]


def measure_sizes(looks: Sequence[Look], min_score: float) -> dict[str, float]:
    """Share found at a least score, in bins of longest side and of share of the picture."""
    found = np.array([look.score >= min_score and look.score > 0 for look in looks])
    sides_px = np.array([look.flaw.side_px for look in looks])
    shares = np.array([look.image_share for look in looks])
    bins = {
        f"recall_{least}_to_{most}_px": np.digitize(sides_px, SIZE_BINS_PX[1:-1]) == place
        for place, (least, most) in enumerate(itertools.pairwise(SIZE_BINS_PX))
    }
    bins |= {
        f"recall_{name}": (shares >= least) & (shares < below)
        for name, (least, below) in SHARE_BINS.items()
    }
    return {name: float(found[there].mean()) for name, there in bins.items() if there.any()}


def part_predictions(
    records: Sequence[Record], predictions: Predictions
) -> list[tuple[Record, Predicted, bool]]:
    """Every predicted region with its picture, and whether it finds a defect."""
    return [
        (record, one, any(is_found(flaw.region, one.region) for flaw in record.flaws))
        for record, predicted in zip(records, predictions, strict=True)
        for one in predicted
    ]


def measure_reliability(
    records: Sequence[Record], predictions: Predictions
) -> tuple[float, list[ScoreBin]]:
    """Expected calibration error of the regions' scores, and the bins that it is summed over."""
    told = part_predictions(records, predictions)
    scores = np.array([one.score for _, one, _ in told])
    return calibration_error(scores, np.array([is_true for *_, is_true in told], bool))


def measure_pixels(
    records: Sequence[Record], predictions: Predictions, min_score: float
) -> dict[str, float]:
    """Pixel AP, Dice at a least score, and the best Dice of any, over the pixels of all pictures.

    A pixel's score is that of its region, the greatest where they overlap, and 0 outside of all.
    """
    scores, hits, sizes = count_pixels(records, predictions)
    defect_px = sum(int((record.labels > 0).sum()) for record in records)
    everything_px = sum(record.labels.size for record in records)
    if not defect_px:
        return {"pixel_ap": 0.0, "pixel_dice": 0.0, "best_pixel_dice": 0.0}
    order = np.argsort(-scores, kind="stable")
    true, called = hits[order].cumsum(), sizes[order].cumsum()
    # scikit-learn's steps: one for each score, the last for all that no region holds
    is_last = np.ones(len(scores), bool)
    is_last[:-1] = np.diff(scores[order]) != 0
    recall = np.append(true[is_last], defect_px) / defect_px
    precision = np.append(true[is_last] / called[is_last], defect_px / everything_px)
    dice = 2 * true[is_last] / (called[is_last] + defect_px)
    kept = scores >= min_score
    return {
        "pixel_ap": float((np.diff(recall, prepend=0.0) * precision).sum()),
        "pixel_dice": float(2 * hits[kept].sum() / (sizes[kept].sum() + defect_px)),
        "best_pixel_dice": float(dice.max(initial=0.0)),
    }


def count_pixels(
    records: Sequence[Record], predictions: Predictions
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each region: its score, how many of its pixels are defect, and how many it has.

    A pixel that several regions share counts for the one of the greatest score.
    """
    scores, hits, sizes = [], [], []
    for record, predicted in zip(records, predictions, strict=True):
        is_taken = np.zeros(record.labels.shape, bool)
        for one in sorted(predicted, key=lambda p: -p.score):
            x, y, width, height = one.region.box
            there = np.s_[y : y + height, x : x + width]
            own = one.region.mask & ~is_taken[there]
            is_taken[there] |= own
            scores.append(one.score)
            hits.append(int((own & (record.labels[there] > 0)).sum()))
            sizes.append(int(own.sum()))
    filled = np.array(sizes, np.int64) > 0
    return (
        np.array(scores, float)[filled],
        np.array(hits, np.int64)[filled],
        np.array(sizes, np.int64)[filled],
    )


def best_scores(predictions: Predictions) -> NDArray[np.float64]:
    """Of each picture the score of its surest region; 0 where it has none."""
    return np.array([max((p.score for p in one), default=0.0) for one in predictions])


def measure_images(records: Sequence[Record], predictions: Predictions) -> float:
    """AUROC of a picture's best score."""
    return image_auroc(list(best_scores(predictions)), [bool(r.flaws) for r in records])
