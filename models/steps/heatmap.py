"""Draw peaks into a heatmap, and find them again: inverses, one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import Heatmap, Mask, Points, Scores


@dataclass(frozen=True)
class Peak:
    """A place where a defect's centre may be, in pixels of the picture."""

    x: float
    y: float
    confidence: float


def draw_peaks(points: Points, sigmas_px: list[float], hw: tuple[int, int], stride: int) -> Scores:
    """A Gaussian for each point on the cells of a heatmap, exactly 1 on the cell that holds it.

    Shapes: points (N, 2) in picture pixels, N sigmas -> (h, w); overlaps keep the larger value.
    Units:  sigmas_px in picture pixels, of the distance between cell centres and the point's cell.
    """
    target = np.zeros(hw, np.float32)
    rows, columns = np.arange(hw[0])[:, None], np.arange(hw[1])[None, :]
    for (x, y), sigma_px in zip(points, sigmas_px, strict=True):
        column, row = cell_of((x, y), hw, stride)
        squared = (rows - row) ** 2 + (columns - column) ** 2
        np.maximum(target, np.exp(-squared / (2 * (sigma_px / stride) ** 2)), out=target)
    return target


def cell_of(point_xy: tuple[float, float], hw: tuple[int, int], stride: int) -> tuple[int, int]:
    """The (column, row) of the heatmap cell that holds a point of the picture."""
    x, y = point_xy
    return int(np.clip(x // stride, 0, hw[1] - 1)), int(np.clip(y // stride, 0, hw[0] - 1))


def find_peaks(
    logits: Heatmap, *, n: int, min_confidence: float, radius: float, rule: str = "coverage"
) -> list[tuple[int, int]]:
    """The cells of the strongest peaks, strongest first; what fills up comes last.

    `coverage`: local maxima of 3 × 3 cells, none within `radius` (Chebyshev, so a square crop) of
    a stronger one. Where n are asked for whatever the confidence (min_confidence 0), other cells
    fill up what is missing, at first those beyond that distance. `literal`: the n greatest cells,
    neighbours or not, as the patent's wording has it; kept for comparison.

    Shapes: logits (h, w) -> at most n (row, column); n where min_confidence is 0 and as many cells
            have a finite logit.
    Units:  radius in cells.
    """
    if rule == "literal":
        strong = _strongest_first(logits, np.ones(logits.shape, bool))
        return [cell for cell in _first(strong, n) if _confidence(logits, cell) >= min_confidence]
    found: list[tuple[int, int]] = []
    is_covered = np.zeros(logits.shape, bool)
    for cell in _candidates(logits, is_covered, found, fill_up=min_confidence == 0.0):
        if len(found) == n or _confidence(logits, cell) < min_confidence:
            return found
        found.append(cell)
        rows, columns = (slice(max(at - int(radius), 0), at + int(radius) + 1) for at in cell)
        is_covered[rows, columns] = True
    return found


def choose_peaks(
    listed: list[Peak], *, n: int, min_confidence: float, radius_px: float
) -> list[Peak]:
    """At most n of the listed peaks, by coverage as in `find_peaks`.

    Listed is what to take first. Where n are asked for whatever the confidence (min_confidence 0),
    those that a stronger one covers fill up what is missing.
    """
    found: list[Peak] = []
    covered: list[Peak] = []
    for peak in listed:
        if len(found) == n or peak.confidence < min_confidence:
            return found
        is_near = any(max(abs(p.x - peak.x), abs(p.y - peak.y)) <= radius_px for p in found)
        (covered if is_near else found).append(peak)
    if min_confidence > 0.0:
        return found
    return found + sorted(covered, key=lambda peak: -peak.confidence)[: n - len(found)]


def confidence_of(logits: Heatmap) -> Scores:
    """Sigmoid, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), np.float32)


def logit_of(scores: Scores) -> Heatmap:
    """The inverse of `confidence_of`, within what float32 can tell."""
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


def _candidates(
    logits: Heatmap, is_covered: Mask, found: list[tuple[int, int]], *, fill_up: bool
) -> Iterator[tuple[int, int]]:
    """Cells in the order in which they are taken; `is_covered` and `found` grow meanwhile."""
    is_peak = logits >= cv2.dilate(logits, np.ones((3, 3), np.uint8))
    for allowed in (is_peak, ~is_peak) if fill_up else (is_peak,):
        yield from (cell for cell in _strongest_first(logits, allowed) if not is_covered[cell])
    if fill_up:
        every = _strongest_first(logits, np.ones(logits.shape, bool))
        yield from (cell for cell in every if cell not in found)


def _strongest_first(logits: Heatmap, allowed: Mask) -> Iterator[tuple[int, int]]:
    """Allowed cells by falling logit, the first in raster order on a tie; sorted in two bites.

    A logit of minus infinity is never allowed: nobody looks there.
    """
    flat = np.flatnonzero(allowed & (logits > -np.inf))
    values = logits.ravel()[flat]
    few = min(1024, flat.size)
    cut = np.partition(values, flat.size - few)[flat.size - few] if few else 0.0
    for chosen in (values >= cut, values < cut):
        order = np.argsort(-values[chosen], kind="stable")
        for index in flat[chosen][order]:
            yield int(index // logits.shape[1]), int(index % logits.shape[1])


def _first(cells: Iterator[tuple[int, int]], n: int) -> list[tuple[int, int]]:
    return [cell for cell, _ in zip(cells, range(n), strict=False)]


def _confidence(logits: Heatmap, cell: tuple[int, int]) -> float:
    return float(confidence_of(logits[cell]))
