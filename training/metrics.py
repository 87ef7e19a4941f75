"""FROC, coverage, pixel AP, KID-like … by numpy, scikit-learn and SciPy, each with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score, roc_auc_score

from models.arrays import Mask
from models.steps.crops import Window
from models.steps.outlines import Region

FALSE_REGIONS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""False regions per image at which FROC is read."""
SCORE_STEPS = 4096
ScoreCounts = NDArray[np.int64]
"""(2, SCORE_STEPS): how many normal and how many defect pixels have each score, lowest first."""


@dataclass(frozen=True)
class Predicted:
    """A predicted region with its score."""

    region: Region
    score: float


@dataclass(frozen=True)
class ScoreBin:
    """Regions of about one score: their mean score, the share of true ones, how many they are."""

    score: float
    share_true: float
    count: int


def is_covered(truth: Region, windows: list[Window]) -> bool:
    """Whether one window shows at least half of a defect's pixels."""
    x, y = truth.x, truth.y
    for window in windows:
        rows = slice(max(window.y - y, 0), max(window.y + window.side_px - y, 0))
        columns = slice(max(window.x - x, 0), max(window.x + window.side_px - x, 0))
        if 2 * int(truth.mask[rows, columns].sum()) >= truth.area_px:
            return True
    return False


def is_found(truth: Region, predicted: Region) -> bool:
    """IoU of at least 0.1, or the prediction's centroid lies in the defect."""
    x, y = predicted.centroid_xy
    row, column = int(y) - truth.y, int(x) - truth.x
    height, width = truth.mask.shape
    if 0 <= row < height and 0 <= column < width and truth.mask[row, column]:
        return True
    shared = _shared_pixels(truth, predicted)
    return shared >= 0.1 * (truth.area_px + predicted.area_px - shared)


def froc(
    truths: Sequence[Sequence[Region]], predictions: Sequence[Sequence[Predicted]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """False regions per image, share of defects found and threshold, by falling threshold.

    A prediction that finds no defect is a false region; further predictions of a found defect are
    neither. Counted over all images, normal ones too.
    """
    total = sum(len(t) for t in truths)
    best = [[0.0] * len(t) for t in truths]
    false_scores: list[float] = []
    for found, regions, predicted in zip(best, truths, predictions, strict=True):
        for prediction in predicted:
            hits = [i for i, truth in enumerate(regions) if is_found(truth, prediction.region)]
            for i in hits:
                found[i] = max(found[i], prediction.score)
            if not hits:
                false_scores.append(prediction.score)
    hit_scores = np.array([score for found in best for score in found if score > 0])
    misses = np.array(false_scores)
    thresholds = np.unique(np.concatenate([hit_scores, misses]))[::-1]
    per_image = np.array([(misses >= t).sum() for t in thresholds]) / max(len(truths), 1)
    recall = np.array([(hit_scores >= t).sum() for t in thresholds]) / max(total, 1)
    return per_image, recall, thresholds


def recall_at(per_image: NDArray[np.float64], recall: NDArray[np.float64], most: float) -> float:
    """The greatest share of defects found at up to `most` false regions per image."""
    allowed = recall[per_image <= most]
    return float(allowed.max()) if allowed.size else 0.0


def score_at(per_image: NDArray[np.float64], thresholds: NDArray[np.float64], most: float) -> float:
    """The least score that keeps to `most` false regions per image; infinite where none does."""
    allowed = thresholds[per_image <= most]
    return float(allowed.min()) if allowed.size else float("inf")


def pixel_average_precision(scores: NDArray[np.float32], truths: Mask) -> float:
    """Area under precision-recall over all pixels, by scikit-learn."""
    if not truths.any():
        return 0.0
    return float(average_precision_score(truths.ravel(), scores.ravel()))


def count_scores(logits: NDArray[np.float32], truths: Mask) -> ScoreCounts:
    """How many pixels have each score; logits are told apart in 4096 steps from -16 to 16.

    Counts of pictures add up, so that millions of pixels need no sorting and no memory.

    Shapes: both (H, W) -> (2, 4096), normal pixels first.
    """
    steps = np.clip((logits + 16) * (SCORE_STEPS / 32), 0, SCORE_STEPS - 1).astype(np.int64)
    both = np.bincount((steps + SCORE_STEPS * truths).ravel(), minlength=2 * SCORE_STEPS)
    return both.reshape(2, SCORE_STEPS)


def average_precision_of(counts: ScoreCounts) -> float:
    """Area under precision-recall, by steps as scikit-learn has it; 0 without a defect pixel."""
    false, true = _from_the_top(counts)
    if not true[-1]:
        return 0.0
    precision = true / np.maximum(true + false, 1)
    return float((np.diff(true, prepend=0) * precision).sum() / true[-1])


def best_f1(counts: ScoreCounts) -> tuple[float, float]:
    """The greatest F1 (Dice) over all thresholds, and the IoU at that threshold."""
    false, true = _from_the_top(counts)
    if not true[-1]:
        return 0.0, 0.0
    best = int(np.argmax(true / (true[-1] + true + false)))
    positive = true[-1] + false[best]
    return float(2 * true[best] / (positive + true[best])), float(true[best] / positive)


def pixel_dice(predicted: Mask, truths: Mask) -> float:
    """2 |P ∩ T| ÷ (|P| + |T|) over all pixels together."""
    total = int(predicted.sum()) + int(truths.sum())
    return 2 * int((predicted & truths).sum()) / total if total else 1.0


def image_auroc(scores: list[float], is_defect: list[bool]) -> float:
    """Area under ROC of one score a picture; 0.5 where only one kind of picture is there."""
    if len(set(is_defect)) < 2:
        return 0.5
    return float(roc_auc_score(is_defect, scores))


def calibration_error(
    scores: NDArray[np.float64], is_true: NDArray[np.bool_], *, bins: int = 10
) -> tuple[float, list[ScoreBin]]:
    """Expected calibration error, and what it is summed over: bins of equal width that hold any.

    The mean gap between a bin's mean score and its share of true ones, weighed by its count.
    Source: "Obtaining Well Calibrated Probabilities Using Bayesian Binning", Naeini et al. 2015.
    """
    places = np.minimum((scores * bins).astype(int), bins - 1)
    told = [
        ScoreBin(float(scores[there].mean()), float(is_true[there].mean()), int(there.sum()))
        for there in (places == bin_ for bin_ in range(bins))
        if there.any()
    ]
    total = max(len(scores), 1)
    return sum(one.count * abs(one.score - one.share_true) for one in told) / total, told


def kid_like(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Unbiased MMD² with a cubic polynomial kernel between two sets of feature vectors.

    Like KID, but on other features than Inception's, so never to be compared across extractors.

    Shapes: (N, d) and (M, d), N and M at least 2.
    Source: "Demystifying MMD GANs", Bińkowski et al. 2018 (arXiv:1801.01401).
    """
    size = first.shape[1]
    same_first, same_second, cross = (
        (a @ b.T / size + 1.0) ** 3 for a, b in ((first, first), (second, second), (first, second))
    )
    n, m = len(first), len(second)
    within = (same_first.sum() - np.trace(same_first)) / (n * (n - 1))
    within += (same_second.sum() - np.trace(same_second)) / (m * (m - 1))
    return float(within - 2 * cross.mean())


def ks_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Greatest gap between two empirical distributions, by SciPy."""
    return float(ks_2samp(first, second).statistic)


def _from_the_top(counts: ScoreCounts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Normal and defect pixels at or above each score, by falling score."""
    false, true = counts[:, ::-1].cumsum(axis=1)
    return false, true


def _shared_pixels(a: Region, b: Region) -> int:
    left, top = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    right = min(a.box[0] + a.box[2], b.box[0] + b.box[2])
    bottom = min(a.box[1] + a.box[3], b.box[1] + b.box[3])
    if left >= right or top >= bottom:
        return 0
    parts = [r.mask[top - r.y : bottom - r.y, left - r.x : right - r.x] for r in (a, b)]
    return int((parts[0] & parts[1]).sum())
