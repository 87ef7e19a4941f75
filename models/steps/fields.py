"""The confidence field: how sure the locator is, everywhere, that a defect's centre is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Heatmap, Mask, Scores
from models.steps.heatmap import Peak, choose_peaks, confidence_of, find_peaks, logit_of

CELL_PX = 8
"""How finely a picture's parts are told to points, which have no cells of their own."""
LiesInside = Callable[[tuple[int, int], int], Mask]
"""Height and width in cells, side of a cell -> (h, w): which cells may have peaks."""


class ConfidenceField(Protocol):
    """What a locator knows of a picture, whichever locator it is."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the picture."""

    @property
    def strongest(self) -> float:
        """The greatest logit."""

    def matrix(self) -> Scores:
        """The confidence of every pixel of the picture: (H, W) float32 in 0..1."""

    def within(self, lies_inside: LiesInside) -> ConfidenceField:
        """The same field with peaks in some cells alone."""

    def peaks(
        self, n: int, *, min_confidence: float, radius_px: float, rule: str = "coverage"
    ) -> list[Peak]:
        """At most n peaks, strongest first, in pixels of the picture (see `find_peaks`)."""

    def confidence_in(self, box: tuple[int, int, int, int]) -> float:
        """The greatest confidence in a box (x, y, width, height)."""


@dataclass(frozen=True)
class DenseField:
    """Logits and offsets on the cells of a picture.

    Shapes: logits (h, w), offsets (2, h, w) as dx, dy in cells from the cell's centre.
    """

    logits: Heatmap
    offsets: NDArray[np.float32]
    stride_px: int
    image_hw: tuple[int, int]

    @property
    def strongest(self) -> float:
        """The greatest logit."""
        return float(self.logits.max())

    def matrix(self) -> Scores:
        """The confidence of every pixel of the picture: (H, W) float32 in 0..1."""
        height, width = self.logits.shape
        size = (width * self.stride_px, height * self.stride_px)
        full = cv2.resize(confidence_of(self.logits), size, interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(full[: self.image_hw[0], : self.image_hw[1]], np.float32)

    def within(self, lies_inside: LiesInside) -> DenseField:
        """The same field with peaks in some cells alone."""
        cells = lies_inside(self.logits.shape, self.stride_px)
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


@dataclass(frozen=True)
class PointField:
    """Points with confidence, each spread over its own neighbourhood.

        c(x, y) = max_i conf_i · exp(-r_i² / 2σ_i²)

    dense: the field whose strongest cells the points are, where it was asked for; its matrix is
    finer than the points'.

    Shapes: points and fillers (K, 4) logit, x, y, sigma in pixels of the picture; fillers are no
            peaks, and make up for missing ones where n are asked for whatever the confidence.
    """

    points: NDArray[np.float32]
    image_hw: tuple[int, int]
    fillers: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 4), np.float32))
    dense: DenseField | None = None

    @property
    def strongest(self) -> float:
        """The greatest logit."""
        return float(self.points[:, 0].max())

    def matrix(self) -> Scores:
        """The confidence of every pixel of the picture: (H, W) float32 in 0..1."""
        if self.dense:
            return self.dense.matrix()
        drawn = np.zeros(self.image_hw, np.float32)
        for logit, x, y, sigma in self.points:
            _spread(drawn, (float(x), float(y)), float(sigma), float(confidence_of(logit)))
        return drawn

    def within(self, lies_inside: LiesInside) -> DenseField | PointField:
        """The same field with peaks in some cells alone; all of them only where it is dense."""
        if self.dense:
            return self.dense.within(lies_inside)
        cells = lies_inside(_cells_of(self.image_hw), CELL_PX)
        kept, fillers = (one[_is_in(cells, one[:, 1:3])] for one in (self.points, self.fillers))
        return replace(self, points=kept, fillers=fillers)

    def peaks(
        self, n: int, *, min_confidence: float, radius_px: float, rule: str = "coverage"
    ) -> list[Peak]:
        """At most n peaks, strongest first, in pixels of the picture (see `choose_peaks`)."""
        if rule == "literal":
            return self._literal(n, min_confidence)
        listed = self._listed(self.points)
        if min_confidence == 0.0:
            listed += self._listed(self.fillers)
        return choose_peaks(listed, n=n, min_confidence=min_confidence, radius_px=radius_px)

    def confidence_in(self, box: tuple[int, int, int, int]) -> float:
        """The greatest confidence c in a box (x, y, width, height)."""
        left, top, width, height = box
        logits, x, y, sigma = np.concatenate([self.points, self.fillers]).T
        aside = np.maximum(np.maximum(left - x, x - left - width), 0.0)
        above = np.maximum(np.maximum(top - y, y - top - height), 0.0)
        bells = np.exp(-(aside**2 + above**2) / (2 * sigma**2))
        return float((confidence_of(logits) * bells).max())

    def _literal(self, n: int, min_confidence: float) -> list[Peak]:
        """The n greatest elements of the matrix, as the patent's wording has it."""
        if self.dense:
            return self.dense.peaks(n, min_confidence=min_confidence, radius_px=0.0, rule="literal")
        matrix = self.matrix()
        cells = find_peaks(
            logit_of(matrix), n=n, min_confidence=min_confidence, radius=0.0, rule="literal"
        )
        return [Peak(column + 0.5, row + 0.5, float(matrix[row, column])) for row, column in cells]

    def _listed(self, points: NDArray[np.float32]) -> list[Peak]:
        """Points as peaks, moved inside the picture, strongest first."""
        logits, x, y, _ = points[np.argsort(-points[:, 0], kind="stable")].T
        height, width = self.image_hw
        inside = (np.clip(x, 0.5, width - 0.5), np.clip(y, 0.5, height - 0.5))
        told = (values.tolist() for values in (*inside, confidence_of(logits)))
        return [Peak(*each) for each in zip(*told, strict=True)]


def _spread(drawn: Scores, point_xy: tuple[float, float], sigma: float, confidence: float) -> None:
    """Draw one point's bell into a matrix, where it is larger, as far as it reaches."""
    reach = int(4 * sigma) + 1
    left, top = (max(0, int(at) - reach) for at in point_xy)
    right, bottom = (max(0, int(at) + reach + 1) for at in point_xy)
    part = drawn[top:bottom, left:right]
    across = np.arange(left, left + part.shape[1]) + 0.5 - point_xy[0]
    down = np.arange(top, top + part.shape[0]) + 0.5 - point_xy[1]
    bell = np.exp(-(down[:, None] ** 2 + across**2) / (2 * sigma**2))
    np.maximum(part, confidence * bell, out=part, casting="same_kind")


def _cells_of(image_hw: tuple[int, int]) -> tuple[int, int]:
    return -(-image_hw[0] // CELL_PX), -(-image_hw[1] // CELL_PX)


def _is_in(cells: Mask, points: NDArray[np.float32]) -> Mask:
    """Whether the cell that holds a point is set; beyond the picture its nearest one counts."""
    columns, rows = (points // CELL_PX).astype(int).T
    height, width = cells.shape
    return np.asarray(cells[rows.clip(0, height - 1), columns.clip(0, width - 1)])
