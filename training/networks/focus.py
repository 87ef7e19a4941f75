"""What a defect does to the light: painted, and measured, as a ratio to that of its surroundings.

Shape suffixes: b batch, c channels, h height, w width (of the crop).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DARK = 0.05
"""Added to light before a ratio is taken, in shares of white: black has no logarithm."""
RESIDUAL_STD = 1e-3
"""Of the last weights where there is a book: what they add to it begins near nothing."""
SCARCE = 1e-2
"""The free share of some cells at which farther ones tell as much of the light as they do."""
COVERING = 4.0
"""Logit of alpha to begin with: a defect hides nearly all that lies under it."""


class DefectFocus(nn.Module):
    """Features -> the defect's light as a ratio to that of its surroundings, and alpha.

    The ratio is the book's filling and a residual; so a defect keeps its look in light and shade.
    """

    def __init__(self, width: int, *, has_book: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 4, 3, padding=1),
        )
        if has_book:
            weight, bias = self.layers[3].parameters()
            nn.init.normal_(weight, std=RESIDUAL_STD)
            nn.init.zeros_(bias)

    def forward(
        self, x_bchw: Tensor, light_bchw: Tensor, filling_bchw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The foreground and its alpha.

        Shapes: features (B, width, S, S), light (B, 3, S, S) in 0..1, filling (B, 3, S, S) log
                ratios -> foreground (B, 3, S, S), alpha (B, 1, S, S), both in 0..1.
        """
        change, alpha = self.layers(x_bchw).split((3, 1), dim=1)
        ratio = (filling_bchw + change.tanh()).exp()
        foreground = ((light_bchw + DARK) * ratio - DARK).clamp(0, 1)
        return foreground, (alpha + COVERING).sigmoid()


class PlainHead(nn.Module):
    """Stands in for the defect-focus head: one 1 × 1 convolution that knows no light."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4, 1)

    def forward(self, x_bchw: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, S, S) -> foreground (B, 3, S, S), alpha (B, 1, S, S), both in 0..1."""
        foreground, alpha = self.conv(F.leaky_relu(x_bchw, 0.2)).split((3, 1), dim=1)
        return foreground.sigmoid(), (alpha + COVERING).sigmoid()


def surroundings(unit_bchw: Tensor, mask_bchw: Tensor) -> Tensor:
    """A crop's local mean that knows next to nothing of what lies under the mask or at its rim.

    Where the cells near by hold too little that is free, those farther away tell; where they too
    hold nothing, the whole crop.

    Shapes: (B, 3, S, S) in 0..1 and (B, 1, S, S) -> (B, 3, S, S); S a multiple of 4.
    """
    free = 1 - rim_of(mask_bchw)
    whole = unit_bchw.mean((2, 3), keepdim=True)
    total, count = (F.avg_pool2d(x, 4) for x in (unit_bchw * free, free))
    near, far = ([_cell_mean(x, cells) for x in (total, count)] for cells in (5, 15))
    wide = (far[0] + SCARCE**2 * whole) / (far[1] + SCARCE**2)
    light = (near[0] + SCARCE * wide) / (near[1] + SCARCE)
    return F.interpolate(light, scale_factor=4.0, mode="bilinear")


def around(x_bchw: Tensor, cells: int) -> Tensor:
    """A local mean over `cells` × `cells` cells of 4 × 4 pixels: cheap, and smooth enough."""
    mean = _cell_mean(F.avg_pool2d(x_bchw, 4), cells)
    return F.interpolate(mean, scale_factor=4.0, mode="bilinear")


def rim_of(mask_bchw: Tensor) -> Tensor:
    """A mask grown by 2 px: what a defect may have touched."""
    return F.max_pool2d(mask_bchw, 5, 1, 2)


def _cell_mean(x_bchw: Tensor, cells: int) -> Tensor:
    """Over `cells` × `cells` cells, at the rim over those there are: along x, then along y."""
    place = torch.arange(int(x_bchw.shape[-1]), device=x_bchw.device)
    is_near = ((place[:, None] - place).abs() <= cells // 2).to(x_bchw.dtype)
    mean = is_near / is_near.sum(1, keepdim=True)
    with torch.autocast(x_bchw.device.type, enabled=False):  # half the digits are too few
        return mean @ (x_bchw @ mean.T)
