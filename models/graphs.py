"""The four networks as the stories call them: a graph, and the numbers that say how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

GraphCall = Callable[..., tuple[NDArray[np.float32], ...]]
"""A graph: arrays by input name -> its outputs in order."""
Wrap = Callable[[str, GraphCall], GraphCall]
"""A graph's name in the bundle, and its call -> the call that takes its place."""


@dataclass(frozen=True)
class HeatmapLocator:
    """The keypoint model that tells every cell: `image` (1, H, W, 3) uint8 -> field, then peaks.

    graph: field (1, 3, H/s, W/s) logit, dx, dy in cells; peaks (1, K, 4) logit, x, y in pixels, 1
           where the cell is a local maximum. Older bundles' graphs give no peaks.
    peaks: the same graph asked for its peaks alone, where it has them.
    """

    graph: GraphCall
    stride_px: int
    multiple_px: int
    peaks: GraphCall | None = None


@dataclass(frozen=True)
class PoseLocator:
    """The keypoint model that regresses points from a look at the whole picture.

    graph: `image` (1, H, W, 3) and `look` (1, *look_hw, 3) uint8 -> (1, K, 4) logit, x, y and
           sigma in pixels.
    """

    graph: GraphCall
    look_hw: tuple[int, int]


Locator = HeatmapLocator | PoseLocator
"""The keypoint model; `models/locating.py` gets one confidence field from either."""


@dataclass(frozen=True)
class Segmenter:
    """`image` (B, side, side, 3) uint8 -> (B, 1 + labels, side, side) logits, background first."""

    graph: GraphCall
    side_px: int


@dataclass(frozen=True)
class MaskGenerator:
    """Stage 1: site, label, scale and Gaussian noise -> a soft mask (B, 1, side, side) in 0..1."""

    graph: GraphCall
    side_px: int
    noise_size: int
    spatial_noise_chw: tuple[int, int, int]


@dataclass(frozen=True)
class DefectGenerator:
    """Stage 2: site, mask, label, scale, noise -> foreground (B, 3, side, side) and alpha, 0..1."""

    graph: GraphCall
    side_px: int
    noise_size: int


def wrap_locator(locator: Locator, wrap: Wrap) -> Locator:
    """The same locator with other calls; both of a heatmap's bear the one graph's name."""
    graph = wrap("locator", locator.graph)
    if isinstance(locator, PoseLocator):
        return replace(locator, graph=graph)
    peaks = wrap("locator", locator.peaks) if locator.peaks else None
    return replace(locator, graph=graph, peaks=peaks)
