"""A sample while it is being made: what is painted so far, apart from the picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from models.arrays import Mask, Pixels
from models.steps.crops import Window
from models.steps.outlines import Region, place_region


@dataclass(frozen=True)
class SyntheticDefect:
    """One painted defect."""

    label: str
    region: Region


@dataclass
class Draft:
    """A sample's defects and the pixels inside them; the picture itself is shared and read only.

    `failures` counts the draws of the next defect that failed a check, `label` is that defect's.
    """

    seed: int
    rng: np.random.Generator
    defects: list[SyntheticDefect] = field(default_factory=list)
    painted: list[Pixels] = field(default_factory=list)
    label: int | None = None
    failures: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    timings_ms: dict[str, float] = field(default_factory=lambda: {"mask": 0.0, "defect": 0.0})

    def accept(self, defect: SyntheticDefect, painted: Pixels) -> None:
        """Keep a defect and the pixels inside its mask, row by row; the next one begins."""
        self.defects.append(defect)
        self.painted.append(painted)
        self.label, self.failures = None, 0

    def reject(self, reason: str) -> None:
        """Count a draw that failed a check."""
        self.rejected[reason] += 1
        self.failures += 1

    def taken_in(self, window: Window) -> Mask:
        """Which pixels of a window are defect already: (side_px, side_px)."""
        taken = np.zeros((window.side_px, window.side_px), bool)
        for defect in self.defects:
            taken |= place_region(defect.region, (window.x, window.y), taken.shape)
        return taken

    def fuse_into(self, pixels: Pixels) -> tuple[Pixels, Mask]:
        """A copy of the picture with every defect in it, and their mask."""
        fused, mask = pixels.copy(), np.zeros(pixels.shape[:2], bool)
        for defect, painted in zip(self.defects, self.painted, strict=True):
            x, y, width, height = defect.region.box
            box = np.s_[y : y + height, x : x + width]
            fused[box][defect.region.mask] = painted
            mask[box] |= defect.region.mask
        return fused, mask
