"""The fillings of stage 2's book: the log ratio of a defect's light to that of its surroundings.

They are measured at the picture's own size, not as the generator is shown it: made smaller, a thin
crack is half surroundings.
Shape suffixes: b batch, p pages, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from models.arrays import Mask
from training.networks.books import box_of, line_of
from training.networks.focus import DARK, surroundings
from training.networks.generators import BOX_SHARE, outline_in
from training.sites import RealSite, SiteSource, trust
from training.trainers.adversarial import unit
from training.trainers.pages import Page, draw_pages

TEXTURE_SCALE = 1.6
"""Side of the square around a filling, in longest sides of its defect."""
RING_PX = (2, 8)
"""From where to where around a mask the light beside it is measured, in the generator's pixels."""
MOTTLED = 0.08
"""How far a pixel's colour may be from its defect's: of a channel's log ratio to all channels'."""
LARGEST_RATIO = 2.5
"""Of two lights, as a logarithm: 12 times."""


@dataclass(frozen=True)
class Filling:
    """What fills a real defect: its page (3, side, side), and the outline it goes with (1, 16, 16).

    level: the defect's mean log ratio: how much darker than its surroundings it is, or brighter.
    light: the mean light of these, 0..1.
    """

    label: int
    page_chw: Tensor
    outline_chw: Tensor
    level: float
    light: float


def texture_pages(source: SiteSource, pages: list[Page]) -> tuple[Tensor, Tensor, Tensor]:
    """What fills real defects, cut to their masks' boxes; beyond a mask its nearest pixel goes on.

    A repeated one is deformed, so that of few defects too some filling fits any outline well.

    Shapes: pages (p, 3, S / 2, S / 2) float32 log ratios, labels (p,) int64, outlines of the masks
            (p, 1, 16, 16); S the source's side.
    """
    reals = draw_pages(
        source, pages, TEXTURE_SCALE, np.random.default_rng(0), least_px=source.shown_px
    )
    found = [measure_filling(real, source.shown_px) for real in reals]
    levels = steady_levels(found, [len(flaws) for flaws in source.flaws])
    steadied = [
        one.page_chw + (level - one.level) for one, level in zip(found, levels, strict=True)
    ]
    labels = torch.tensor([one.label for one in found])
    return torch.stack(steadied), labels, torch.stack([one.outline_chw for one in found])


def measure_filling(real: RealSite, shown_px: int) -> Filling:
    """A real defect's log ratio, spread out from its inside, as a page.

    The rim is left out, for it is half surroundings, but where a defect is all rim.
    """
    image = unit(torch.from_numpy(real.site.image[None]))
    mask = torch.from_numpy((real.mask >= 0.5).astype(np.float32))[None, None]
    light = _light_around(image, mask, shown_px)
    ratio = ((image + DARK) / light).log().clamp(-LARGEST_RATIO, LARGEST_RATIO)
    inside = cv2.erode((real.mask >= 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not inside.any():
        inside = real.mask >= min(0.5, real.mask.max())
        mask = torch.from_numpy(inside.astype(np.float32))[None, None]
    plain = _less_mottled(ratio[0].numpy(), inside)
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    spread = torch.from_numpy(plain[:, rows, columns])
    return Filling(
        label=real.label,
        page_chw=_cut_to_box(spread, mask, shown_px // 2),
        outline_chw=outline_in(mask, box_of(mask, line_of(mask.shape[-1])))[0],
        level=float(spread[:, mask[0, 0] > 0].mean()),
        light=float((light * mask).sum() / mask.sum() / 3) - DARK,
    )


def steady_levels(found: Sequence[Filling], known: Sequence[int]) -> list[float]:
    """The fillings' levels, drawn towards their label's mean, the more the fewer it has.

    One of a handful may have been taken out of the dark or at a part's edge, where a ratio says
    little: in the mean they count by their light. `known` real defects each label has.
    """
    steady = []
    for one in found:
        alike = [other for other in found if other.label == one.label]
        lights = [other.light for other in alike]
        mean = float(np.average([other.level for other in alike], weights=lights))
        steady.append(mean + trust(known[one.label]) * (one.level - mean))
    return steady


def _light_around(image_bchw: Tensor, mask_bchw: Tensor, shown_px: int) -> Tensor:
    """The surroundings as the generator finds them, in the mean as bright as the brighter side.

    Around the mask pixels weigh as much as they are bright: what lies beyond a part's edge, or in
    its shadow, says little of the light that a defect is in.

    Shapes: (1, 3, s, s) and (1, 1, s, s) -> (1, 3, s, s), DARK added to it.
    """
    size = (shown_px, shown_px)
    small, small_mask = (F.interpolate(x, size, mode="area") for x in (image_bchw, mask_bchw))
    small_mask = (small_mask > 0).float()
    light = surroundings(small, small_mask) + DARK
    inner, outer = (F.max_pool2d(small_mask, 2 * px + 1, 1, px) for px in RING_PX)
    ring, grey = outer - inner, small.mean(1, keepdim=True)
    if (ring * grey).any():
        bright = (ring * grey**2).sum() / (ring * grey).sum() + DARK
        under = (small_mask * light.mean(1, keepdim=True).log()).sum() / small_mask.sum()
        light = light * bright / under.exp()
    return F.interpolate(light, image_bchw.shape[-2:], mode="bilinear")


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
    filling_px = mask_bchw.shape[-1]
    x, y, half = (float(edge[0]) for edge in box_of(mask_bchw, line_of(filling_px)))
    reach = half / BOX_SHARE
    finer = max(1, round(reach * filling_px / side_px))
    matrix = torch.tensor([[[reach, 0.0, x], [0.0, reach, y]]])
    grid = F.affine_grid(matrix, [1, 3, finer * side_px, finer * side_px], align_corners=False)
    cut = F.grid_sample(filling_chw[None], grid, padding_mode="border", align_corners=False)
    return F.avg_pool2d(cut, finer)[0]
