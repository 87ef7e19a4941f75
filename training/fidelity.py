"""How far made defects are from real ones: one protocol for every way of making them.

Each connected region of a label is a defect, but for crumbs of an annotation under 9 px. Its crop
is a square of 1.5 × its longest side (a quarter of padding at each end), resized to 128 px.
Features are lite0's, so no distance may be compared with one of another extractor. Labels are
pooled. Resampling is over crops; crops of one part resemble each other, so true errors are
somewhat greater.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import wasserstein_distance
from torch import nn

from models.arrays import Mask, RgbImage
from models.steps.crops import Window, cut_crop, resize_crop, window_around
from models.steps.outlines import place_region
from training.data import Flaw, Record
from training.metrics import kid_like, ks_distance
from training.networks.encoders import lite0_encoder, scale_pixels

CROP_PX = 128
PADDING = 0.25
LEAST_AREA_PX = 9
BATCH = 32
SPLITS = 100
LEAST_CROPS = 4
"""Fewer crops of either kind cannot be halved: distances of features are left out then."""
VISIBLE_QUANTILE = 0.1
SHAPES = ("log_area", "elongation", "solidity")


@dataclass(frozen=True)
class DefectCrop:
    """A defect in its square: image (128, 128, 3), mask (128, 128), label from 1.

    shape and stand_out are measured in the picture's own pixels, not in the crop's.
    """

    image: RgbImage
    mask: Mask
    label: int
    shape: tuple[float, float, float]
    stand_out: float


@dataclass(frozen=True)
class Portrait:
    """What a set of defects is compared by: (N, 152), (N, 3), (N,) and (N,)."""

    features: NDArray[np.float64]
    shapes: NDArray[np.float64]
    stand_outs: NDArray[np.float64]
    labels: NDArray[np.int64]


def measure_fidelity(
    generated: Iterable[Record], real: Iterable[Record], *, seed: int = 0
) -> dict[str, float]:
    """Figures of made defects against real ones; see compare."""
    return compare(portray(crop_defects(generated)), portray(crop_defects(real)), seed=seed)


def compare(generated: Portrait, real: Portrait, *, seed: int = 0) -> dict[str, float]:
    """Every figure that the numbers of defects allow; none of them needs a trained network.

    kid, kid_error: 1000 × MMD² of all crops, and its spread over halves of both sets.
    kid_floor, kid_floor_95: mean and 95th percentile of real halves against each other.
    diversity: mean pairwise distance of features, made ÷ real.
    ks_*: KS distance of log-area, elongation and solidity of the masks.
    visible: share that stands out at least as the real label's 10th percentile does: real ones .9.
    """
    figures = {"crops": float(len(generated.labels)), "real_crops": float(len(real.labels))}
    if not (len(generated.labels) and len(real.labels)):
        return figures
    for index, name in enumerate(SHAPES):
        figures[f"ks_{name}"] = ks_distance(generated.shapes[:, index], real.shapes[:, index])
    figures["visible"] = share_visible(generated, real)
    if min(len(generated.labels), len(real.labels)) >= LEAST_CROPS:
        figures |= measure_distances(generated.features, real.features, seed=seed)
    return figures


def measure_distances(
    generated: NDArray[np.float64], real: NDArray[np.float64], *, seed: int
) -> dict[str, float]:
    """KID-like distance with its error and floor, and diversity.

    The spread over halves drawn without replacement is the standard error of the whole.
    Source: "A General Theory for Jackknife Variance Estimation", Shao and Wu 1989 (delete half).
    """
    rng = np.random.default_rng(seed)
    halves = [
        (_half(generated, rng), _half(real, rng), np.array_split(rng.permutation(real), 2))
        for _ in range(SPLITS)
    ]
    spread = [kid_like(some, others) for some, others, _ in halves]
    floor = [kid_like(*both) for _, _, both in halves]
    return {
        "kid": 1e3 * kid_like(generated, real),
        "kid_error": 1e3 * float(np.std(spread)),
        "kid_floor": 1e3 * float(np.mean(floor)),
        "kid_floor_95": 1e3 * float(np.quantile(floor, 0.95)),
        "diversity": float(pdist(generated).mean() / max(pdist(real).mean(), 1e-9)),
    }


def share_visible(generated: Portrait, real: Portrait) -> float:
    """Share of defects that stand out as nine tenths of the real ones of their label do.

    A label without real defects is held against all of them.
    """

    def least(label: int) -> float:
        same = real.stand_outs[real.labels == label]
        return float(np.quantile(same if len(same) else real.stand_outs, VISIBLE_QUANTILE))

    pairs = zip(generated.labels, generated.stand_outs, strict=True)
    return float(np.mean([found >= least(label) for label, found in pairs]))


def crop_defects(records: Iterable[Record]) -> list[DefectCrop]:
    """Every defect of the records in its square."""
    return [_crop(record, flaw) for record in records for flaw in whole_flaws(record)]


def whole_flaws(record: Record) -> list[Flaw]:
    """A record's defects without the crumbs."""
    return [flaw for flaw in record.flaws if flaw.region.area_px >= LEAST_AREA_PX]


def window_of(flaw: Flaw, hw: tuple[int, int], *, padding: float = PADDING) -> Window:
    """The square around a defect that leaves `padding` of its longest side free at each end."""
    x, y, width, height = flaw.region.box
    side_px = round(flaw.side_px * (1 + 2 * padding))
    return window_around((x + width / 2, y + height / 2), side_px, hw)


def portray(crops: list[DefectCrop]) -> Portrait:
    """The crops' features and measures."""
    return Portrait(
        features=features([crop.image for crop in crops]),
        shapes=np.array([crop.shape for crop in crops], float).reshape(-1, 3),
        stand_outs=np.array([crop.stand_out for crop in crops], float),
        labels=np.array([crop.label for crop in crops], np.int64),
    )


def stand_out(record: Record, flaw: Flaw) -> float:
    """How far a defect is from its surroundings, in grey levels of 255.

        mean over channels of W1(values inside the mask, values in the ring)

    W1 is the mean distance between equal quantiles: of a flat defect the difference of means, of
    a rough one also what its texture adds. The ring begins one pixel off the mask, is a quarter of
    √area wide (at least 3 px) and leaves out other defects; without a ring nothing stands out.

    Source: Wasserstein distance by SciPy.
    """
    ring_px = max(3, round(flaw.region.area_px**0.5 / 4))
    x, y, width, height = flaw.region.box
    reach = 1 + ring_px
    top, left = max(0, y - reach), max(0, x - reach)
    image = record.image[top : y + height + reach, left : x + width + reach]
    others = record.labels[top : y + height + reach, left : x + width + reach] > 0
    inside = place_region(flaw.region, (left, top), (image.shape[0], image.shape[1]))
    ring = _widen(inside, reach) & ~_widen(inside, 1) & ~others
    if not ring.any():
        return 0.0
    channels = [wasserstein_distance(image[inside][:, c], image[ring][:, c]) for c in range(3)]
    return float(np.mean(channels))


def measure_shape(mask: Mask) -> tuple[float, float, float]:
    """Log-area, elongation (long ÷ short side) and solidity (area ÷ convex hull) of a mask.

    The hull's area is its pixels, so whatever is as full as pixels allow has a solidity of 1.
    """
    points = np.argwhere(mask)[:, ::-1].astype(np.float32)
    if len(points) < 3:
        return float(np.log(max(len(points), 1))), 1.0, 1.0
    _, size, _ = cv2.minAreaRect(points)
    elongation = (max(size) + 1) / (min(size) + 1)
    return float(np.log(len(points))), float(elongation), len(points) / _pixels_of_hull(points)


def _pixels_of_hull(points: NDArray[np.float32]) -> float:
    """How many pixels have their centres in the convex hull of some, or on its edge.

    Source: "Geometrisches zur Zahlenlehre", Pick 1899: area + points on the edge / 2 + 1.
    """
    corners = cv2.convexHull(points)[:, 0].astype(int)
    steps = np.abs(np.roll(corners, -1, axis=0) - corners)
    on_edge = np.gcd(steps[:, 0], steps[:, 1]).sum()
    return float(cv2.contourArea(corners.astype(np.float32)) + on_edge / 2 + 1)


def features(images: list[RgbImage]) -> NDArray[np.float64]:
    """EfficientNet-Lite0's features of crops, averaged at strides 8 and 16: (N, 152)."""
    pooled = [np.zeros((0, 152))]
    for start in range(0, len(images), BATCH):
        with torch.no_grad():
            maps = _extractor()(
                scale_pixels(torch.from_numpy(np.stack(images[start : start + BATCH])))
            )
        scaled = [F.normalize(m.mean((2, 3)), dim=1) * m.shape[1] ** 0.5 for m in maps]
        pooled.append(torch.cat(scaled, dim=1).double().numpy())
    return np.concatenate(pooled)


@cache
def _extractor() -> nn.Module:
    return lite0_encoder(out_indices=(2, 3)).eval()


def _half(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(rng.permutation(rows)[: len(rows) // 2])


def _crop(record: Record, flaw: Flaw) -> DefectCrop:
    hw = (record.image.shape[0], record.image.shape[1])
    window = window_of(flaw, hw)
    mask = 255 * place_region(flaw.region, (0, 0), hw).astype(np.uint8)
    return DefectCrop(
        image=resize_crop(cut_crop(record.image, window), CROP_PX),
        mask=resize_crop(cut_crop(mask, window), CROP_PX) >= 128,
        label=flaw.label,
        shape=measure_shape(flaw.region.mask),
        stand_out=stand_out(record, flaw),
    )


def _widen(mask: Mask, by_px: int) -> Mask:
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by_px + 1, 2 * by_px + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), ball) > 0)
