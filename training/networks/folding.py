"""The plain locator as its graph computes it: the same function, its pixels read as they lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.networks.encoders import scale_pixels
from training.networks.locators import PATCH_PX, PlainLocator

PAIR = 2
"""Patches side by side that one convolution answers: so few channels would leave it idle."""


class FoldedLocator(nn.Module):
    """A trained plain locator whose first convolution takes rows of pixels instead of planes.

    A 4 × 4 convolution of stride 4 on 3 channels would have 12 MP turned into planes and gathered
    in runs of 4 bytes. Side by side in memory lie 24 bytes: the pixels of two patches in one row.
    As one pixel of 24 channels they need no turning, and 4 such rows are two patches.
    """

    def __init__(self, network: PlainLocator) -> None:
        super().__init__()
        self.pairs = fold_patches(network.stem[0])
        self.network = network

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """What the plain locator answers, to the last bits of a float."""
        rows_bhwc = image_bhwc.reshape(*image_bhwc.shape[:2], -1, self.pairs.in_channels)
        pairs_bhwc = F.relu(self.pairs(scale_pixels(rows_bhwc))).permute(0, 2, 3, 1)
        channels = self.pairs.out_channels // PAIR
        patches_bhwc = pairs_bhwc.reshape(*pairs_bhwc.shape[:2], -1, channels)
        return self.network.field_of(patches_bhwc.permute(0, 3, 1, 2))


def fold_patches(patches: nn.Module) -> nn.Conv2d:
    """A normalised patch convolution -> one of PAIR patches, on rows of their pixels.

    Shapes: weight (C, 3, 4, 4) -> (2 C, 24, 4, 1); no patch sees the other's pixels.
    """
    conv, norm = patches[0], patches[1]  # type: ignore[index]
    fused = fuse_conv_bn_eval(conv.eval(), norm.eval())
    outside, colours, height, width = fused.weight.shape
    row = width * colours
    one = fused.weight.permute(0, 3, 1, 2).reshape(outside, row, height, 1)
    pairs = nn.Conv2d(PAIR * row, PAIR * outside, (PATCH_PX, 1), stride=(PATCH_PX, 1))
    with torch.no_grad():
        pairs.weight.zero_()
        for k in range(PAIR):
            pairs.weight[k * outside : (k + 1) * outside, k * row : (k + 1) * row] = one
        assert pairs.bias is not None
        pairs.bias.copy_(fused.bias.repeat(PAIR))
    return pairs
