"""The four networks as the stories call them: a graph, and the numbers that say how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GraphCall = Callable[..., tuple[NDArray[np.float32], ...]]
"""A graph: arrays by input name -> its outputs in order."""


@dataclass(frozen=True)
class Locator:
    """The keypoint model: `image` (1, H, W, 3) uint8 -> (1, 3, H/s, W/s) logit, dx, dy in cells."""

    graph: GraphCall
    stride_px: int
    multiple_px: int


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
