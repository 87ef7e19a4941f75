"""Critics at two levels for both stages: the whole crop, and the defect's region alone.

Source: patent "A defect image generation method", first and second dual-level discriminators.
Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.networks.blocks import sharp_conv


class Critic(nn.Module):
    """One score a picture; a projection of the label says whether it is that kind of defect.

    Source: "cGANs with Projection Discriminator", Miyato & Koyama 2018 (arXiv:1802.05637).
    """

    def __init__(self, channels: int, labels: int, *, width: int) -> None:
        super().__init__()
        widths = (channels, 2 * width, 4 * width, 6 * width, 8 * width)
        self.layers = nn.ModuleList(sharp_conv(a, b) for a, b in pairwise(widths))
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.label = spectral_norm(nn.Embedding(labels, widths[-1]))

    def forward(self, x_bchw: Tensor, label_b: Tensor) -> Tensor:
        """(B, channels, h, w) and labels (B,) -> scores (B,)."""
        for layer in self.layers:
            x_bchw = F.leaky_relu(layer(x_bchw), 0.2)
        features = x_bchw.mean((2, 3))
        judged: Tensor = self.score(features)[:, 0] + (features * self.label(label_b)).sum(1)
        return judged
