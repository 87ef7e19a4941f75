"""The confidence field: how sure the locator is, everywhere, that a defect's centre is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Heatmap, Mask, Scores
from models.steps.heatmap import Peak, confidence_of, find_peaks


@dataclass(frozen=True)
class ConfidenceField:
    """Logits and offsets on the cells of a picture.

    Shapes: logits (h, w), offsets (2, h, w) as dx, dy in cells from the cell's centre.
    """

    logits: Heatmap
    offsets: NDArray[np.float32]
    stride_px: int
    image_hw: tuple[int, int]

    def matrix(self) -> Scores:
        """The confidence of every pixel of the picture: (H, W) float32 in 0..1."""
        height, width = self.logits.shape
        size = (width * self.stride_px, height * self.stride_px)
        full = cv2.resize(confidence_of(self.logits), size, interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(full[: self.image_hw[0], : self.image_hw[1]], np.float32)

    def within(self, cells: Mask) -> ConfidenceField:
        """The same field with peaks in those cells alone; (h, w) as the logits."""
        return replace(self, logits=np.where(cells, self.logits, np.float32(-np.inf)))

    def peaks(
        self, n: int, *, min_confidence: float, radius_px: float, rule: str = "coverage"
    ) -> list[Peak]:
        """At most n peaks, strongest first, in pixels of the picture (see `find_peaks`)."""
        cells = find_peaks(
            self.logits,
            n=n,
            min_confidence=min_confidence,
            radius=radius_px / self.stride_px,
            rule=rule,
        )
        return [self._peak(row, column) for row, column in cells]

    def confidence_in(self, box: tuple[int, int, int, int]) -> float:
        """The greatest confidence of the cells that a box (x, y, width, height) touches."""
        x, y, width, height = box
        rows = slice(y // self.stride_px, (y + height - 1) // self.stride_px + 1)
        columns = slice(x // self.stride_px, (x + width - 1) // self.stride_px + 1)
        return float(confidence_of(self.logits[rows, columns].max()))

    def _peak(self, row: int, column: int) -> Peak:
        dx, dy = np.clip(self.offsets[:, row, column], -0.5, 0.5)
        x = min((column + 0.5 + float(dx)) * self.stride_px, self.image_hw[1] - 0.5)
        y = min((row + 0.5 + float(dy)) * self.stride_px, self.image_hw[0] - 0.5)
        return Peak(x, y, float(confidence_of(self.logits[row, column])))
