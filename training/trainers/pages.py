"""Real defects as the pages of the generators' books, and the shapes of stage 1.

A shape is the signed distance to a defect's contour, as logits; stage 2's are in `fillings`.
Shape suffixes: p pages.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.arrays import Mask
from models.steps.sites import LEAST_SIDE_PX
from training.sites import MASK_SCALE, RealSite, SiteSource, deform

Page = tuple[int, int]
"""A real defect: its label, and its place among the flaws that a source has of that label."""

PAGE_TURN_SPREAD = 0.5
"""Standard deviation, in radians, by which a repeated page is turned."""
MOST_LOST = 0.5
"""The share of a mask that a deformation may turn out of its square."""
THIN_SHARE = 0.1
"""A pixel is in a thin shape from that share on, of the fullest one's: cracks fill none."""
STAIRS_PX = 0.8
"""Standard deviation, in its own pixels, by which the stairs of a shape's outline are rounded."""
LOGITS_PER_PX = 0.75
FARTHEST_PX = 8.0
"""Beyond it from the contour, a logit stays what it is."""


def choose_pages(source: SiteSource, count: int) -> list[Page]:
    """Which defects fill a book: as many of each label, evenly; repeated where there are few.

    A count of 0 is no book: then every defect, once.
    """
    present = [k for k, flaws in enumerate(source.flaws) if flaws]
    pages: list[Page] = []
    for nth, label in enumerate(present):
        known = len(source.flaws[label])
        share = count // len(present) + (nth < count % len(present)) if count else known
        pages += [(label, i * known // share if known > share else i % known) for i in range(share)]
    return pages


def shape_pages(source: SiteSource, pages: list[Page]) -> tuple[Tensor, Tensor]:
    """Real shapes in squares of MASK_SCALE of their longest side; a repeated one is deformed.

    Shapes: pages (p, 1, S, S) float32 logits, labels (p,) int64; S the source's side.
    """
    rng, fields = np.random.default_rng(0), []
    for real in draw_pages(source, pages, MASK_SCALE, rng):
        fields.append(_signed_logits(_without_stairs(real)))
    return torch.from_numpy(np.stack(fields))[:, None], torch.tensor([k for k, _ in pages])


def scales_of(source: SiteSource, pages: list[Page]) -> Tensor:
    """log2 of picture pixels per crop pixel, of a square as sites have it around each defect: (p,).

    The middle of the sides that are drawn for it, no longer than the picture's.
    """
    middle = sum(source.crop_scale) / 2
    sides_px = []
    for label, flaw in pages:
        record, found = source.flaws[label][flaw]
        side_px = max(LEAST_SIDE_PX, middle * found.side_px)
        sides_px.append(min(side_px, *record.image.shape[:2]))
    return torch.tensor(sides_px).div(source.shown_px).log2()


def draw_pages(
    source: SiteSource,
    pages: list[Page],
    scale: float,
    rng: np.random.Generator,
    *,
    least_px: int | None = None,
) -> Iterator[RealSite]:
    """The defect of each page in the middle of its square; a repeated one is deformed.

    scale: the square's side in longest sides of its defect; least_px as in `draw_real`.
    """
    seen = set()
    for page in pages:
        label, flaw = page
        real = source.draw_real(
            label, rng, crop_scale=(scale, scale), slack_share=0.0, flaw=flaw, least_px=least_px
        )
        deformed = deform(real, rng, turn_spread=PAGE_TURN_SPREAD) if page in seen else real
        yield real if deformed.mask.sum() < MOST_LOST * real.mask.sum() else deformed
        seen.add(page)


def _without_stairs(real: RealSite) -> Mask:
    """The shape behind a mask, as large as it: enlarged, the pixels of a small one were stairs.

    Made smaller, a crack may be too thin for its area to hang together; then it is drawn thicker.
    """
    enlarged = real.mask.shape[0] / real.site.window.side_px
    rounded = cv2.GaussianBlur(real.mask, (0, 0), STAIRS_PX * enlarged)
    area_px = max(1, round(float(real.mask.sum())))
    shape = np.asarray(rounded >= np.partition(rounded.ravel(), -area_px)[-area_px])
    thick = np.asarray(real.mask >= THIN_SHARE * real.mask.max())
    return thick if _count_parts(thick) < _count_parts(shape) else shape


def _count_parts(mask: Mask) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0])


def _signed_logits(inside: Mask) -> NDArray[np.float32]:
    """Falling with the distance from the contour, above 0 inside."""
    within, beyond = (
        np.asarray(cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
        for side in (inside, ~inside)
    )
    to_contour = np.where(inside, -0.5, 0.5)  # it runs between two pixels
    depth = np.asarray(within - beyond + to_contour, np.float32)
    return np.clip(depth, -FARTHEST_PX, FARTHEST_PX) * np.float32(LOGITS_PER_PX)
