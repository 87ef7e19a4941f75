"""What fills the generators' books: real defects as pages.

Stage 1's pages are shapes: the signed distance to a defect's contour, as logits. Stage 2's are
fillings: the log ratio of a defect's light to that of its surroundings.
Shape suffixes: p pages, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from models.arrays import Mask
from models.steps.sites import LEAST_SIDE_PX
from training.networks.books import box_of, line_of
from training.networks.focus import DARK, surroundings
from training.networks.generators import BOX_SHARE, outline_in
from training.sites import MASK_SCALE, RealSite, SiteSource, deform
from training.trainers.adversarial import unit

Page = tuple[int, int]
"""A real defect: its label, and its place among the flaws that a source has of that label."""

PAGE_TURN_SPREAD = 0.5
"""Standard deviation, in radians, by which a repeated page is turned."""
STAIRS_PX = 0.8
"""Standard deviation, in its own pixels, by which the stairs of a shape's outline are rounded."""
LOGITS_PER_PX = 0.75
FARTHEST_PX = 8.0
"""Beyond it from the contour, a logit stays what it is."""
TEXTURE_SCALE = 1.6
"""Side of the square around a filling, in longest sides of its defect."""
MOTTLED = 0.08
"""How far a pixel's colour may be from its defect's: of a channel's log ratio to all channels'."""
LARGEST_RATIO = 2.5
"""Of two lights, as a logarithm: 12 times."""


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
    for real in _draw_pages(source, pages, MASK_SCALE, rng):
        fields.append(_signed_logits(_without_stairs(real)))
    return torch.from_numpy(np.stack(fields))[:, None], torch.tensor([k for k, _ in pages])


def scales_of(source: SiteSource, pages: list[Page]) -> Tensor:
    """log2 of picture pixels per crop pixel, of a square as sites have it around each defect: (p,).

    The middle of the sides that are drawn for it.
    """
    middle = sum(source.crop_scale) / 2
    longest_px = [source.flaws[label][flaw][1].side_px for label, flaw in pages]
    sides_px = np.maximum(LEAST_SIDE_PX, middle * np.array(longest_px, np.float32))
    return torch.from_numpy(np.log2(sides_px / source.shown_px).astype(np.float32))


def texture_pages(source: SiteSource, pages: list[Page]) -> tuple[Tensor, Tensor, Tensor]:
    """What fills real defects, cut to their masks' boxes; beyond a mask its nearest pixel goes on.

    A repeated one is deformed, so that of few defects too some filling fits any outline well.

    Shapes: pages (p, 3, S / 2, S / 2) float32 log ratios, labels (p,) int64, outlines of the masks
            (p, 1, 16, 16); S the source's side.
    """
    rng, found, outlines = np.random.default_rng(0), [], []
    for real in _draw_pages(source, pages, TEXTURE_SCALE, rng):
        mask = _hard(real)
        found.append(_cut_to_box(_filling(real), mask, source.shown_px // 2))
        outlines.append(outline_in(mask, box_of(mask, line_of(source.shown_px)))[0])
    return torch.stack(found), torch.tensor([k for k, _ in pages]), torch.stack(outlines)


def _draw_pages(
    source: SiteSource, pages: list[Page], scale: float, rng: np.random.Generator
) -> Iterator[RealSite]:
    """The defect of each page in the middle of its square; a repeated one is deformed."""
    seen = set()
    for page in pages:
        label, flaw = page
        real = source.draw_real(label, rng, crop_scale=(scale, scale), slack_share=0.0, flaw=flaw)
        yield deform(real, rng, turn_spread=PAGE_TURN_SPREAD) if page in seen else real
        seen.add(page)


def _without_stairs(real: RealSite) -> Mask:
    """The shape behind a mask, as large as it: enlarged, the pixels of a small one were stairs."""
    enlarged = real.mask.shape[0] / real.site.window.side_px
    rounded = cv2.GaussianBlur(real.mask, (0, 0), STAIRS_PX * enlarged)
    area_px = max(1, round(float(real.mask.sum())))
    return np.asarray(rounded >= np.partition(rounded.ravel(), -area_px)[-area_px])


def _signed_logits(inside: Mask) -> NDArray[np.float32]:
    """Falling with the distance from the contour, above 0 inside."""
    within, beyond = (
        np.asarray(cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
        for side in (inside, ~inside)
    )
    to_contour = np.where(inside, -0.5, 0.5)  # it runs between two pixels
    depth = np.asarray(within - beyond + to_contour, np.float32)
    return np.clip(depth, -FARTHEST_PX, FARTHEST_PX) * np.float32(LOGITS_PER_PX)


def _filling(real: RealSite) -> Tensor:
    """Log ratio (3, S, S) of a square's light to its surroundings', spread out from the inside.

    The rim is left out, for it is half surroundings, but where a defect is all rim.
    """
    image = unit(torch.from_numpy(real.site.image[None]))
    light = surroundings(image, _hard(real))
    ratio = ((image + DARK) / (light + DARK)).log().clamp(-LARGEST_RATIO, LARGEST_RATIO)
    mask = (real.mask >= 0.5).astype(np.uint8)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    if not inside.any():
        inside = real.mask >= min(0.5, real.mask.max())
    plain = _less_mottled(ratio[0].numpy(), inside)
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return torch.from_numpy(plain[:, rows, columns])


def _less_mottled(ratio_chw: NDArray[np.float32], inside: Mask) -> NDArray[np.float32]:
    """A ratio no pixel of which is of another colour than its defect by more than MOTTLED.

    The colours of dark pixels are the camera's noise: on a bright part they are violet and cyan.
    """
    grey = ratio_chw.mean(0)
    colour = ratio_chw - grey
    whole = colour[:, inside].mean(1)[:, None, None]
    own = colour - whole
    own *= np.minimum(1.0, MOTTLED / np.maximum(np.abs(own).max(0), MOTTLED))
    return np.asarray(grey + whole + own, np.float32)


def _cut_to_box(filling_chw: Tensor, mask_bchw: Tensor, side_px: int) -> Tensor:
    """The part of a filling that the box of its mask takes BOX_SHARE of: (3, side, side)."""
    x, y, half = (float(edge[0]) for edge in box_of(mask_bchw, line_of(mask_bchw.shape[-1])))
    reach = half / BOX_SHARE
    matrix = torch.tensor([[[reach, 0.0, x], [0.0, reach, y]]])
    grid = F.affine_grid(matrix, [1, 3, side_px, side_px], align_corners=False)
    cut = F.grid_sample(filling_chw[None], grid, padding_mode="border", align_corners=False)
    return cut[0]


def _hard(real: RealSite) -> Tensor:
    """Its mask as 0 or 1: (1, 1, S, S)."""
    return torch.from_numpy((real.mask >= 0.5).astype(np.float32))[None, None]
