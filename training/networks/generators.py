"""The two generators: one imagines masks, one paints the defect that a mask asks for.

Shape suffixes: b batch, c channels, h height, w width (of the crop). Pixels, masks and object masks
come as uint8 and are scaled inside.
Source: patent "A defect image generation method", claims 2, 3 and 8.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.blocks import Condition, Down, FeatureModulation, Film, double

CONDITION_SIZE = 64
SPATIAL_NOISE = 8
EMBEDDING = 16


class MaskGenerator(nn.Module):
    """Stage 1: a normal crop and Gaussian noise -> a soft mask; other noise, another mask.

    The encoder finds intermediate defect features in the crop, at half resolution; the noise guides
    the decoder through FiLM and a few noise channels at the bottleneck; a sigmoid brings the
    upsampled features to 0..1.
    """

    def __init__(self, labels: int, *, side_px: int, width: int, noise_size: int) -> None:
        super().__init__()
        self.side_px, self.noise_size = side_px, noise_size
        self.spatial_noise_chw = spatial_noise_chw(side_px)
        widths = (width, 2 * width, 4 * width, 6 * width)
        self.condition = Condition(noise_size, labels, CONDITION_SIZE)
        self.stem = nn.Conv2d(4, widths[0], 4, 2, 1)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.bottleneck = nn.Conv2d(widths[-1] + SPATIAL_NOISE, widths[-1], 3, padding=1)
        self.films = nn.ModuleList(Film(w, CONDITION_SIZE) for w in reversed(widths))
        self.decoder = nn.ModuleList(
            nn.Conv2d(a + b, b, 3, padding=1)
            for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(
        self,
        image: Tensor,
        object: Tensor,
        label: Tensor,
        scale: Tensor,
        noise: Tensor,
        spatial_noise: Tensor,
    ) -> Tensor:
        """The soft mask of a defect on each crop.

        Shapes: image (B, S, S, 3) uint8, object (B, S, S) uint8 0 or 255, label (B,) int64,
                scale (B,) log2 of picture pixels per crop pixel, noise (B, noise_size), spatial
                noise (B, 8, S/16, S/16) -> mask (B, 1, S, S) in 0..1.
        """
        condition_bc = self.condition(noise, label, scale)
        x = torch.cat([to_unit(image), object[:, None].float() / 127.5 - 1], dim=1)
        x = F.leaky_relu(self.stem(x), 0.2)
        skips = []
        for down in self.encoder:
            skips.append(x)
            x = down(x)
        x = self.bottleneck(torch.cat([x, spatial_noise], dim=1))
        x = F.leaky_relu(self.films[0](x, condition_bc), 0.2)
        for film, conv, skip in zip(self.films[1:], self.decoder, reversed(skips), strict=True):
            x = F.leaky_relu(film(conv(torch.cat([double(x), skip], dim=1)), condition_bc), 0.2)
        return double(self.head(x)).sigmoid()


class DefectGenerator(nn.Module):
    """Stage 2: a normal crop and a mask -> the defect's foreground and its alpha.

    encoder -> decoder that ends in two consecutive feature-modulation modules -> defect-focus head.
    """

    def __init__(self, labels: int, *, side_px: int, width: int, noise_size: int) -> None:
        super().__init__()
        self.side_px, self.noise_size = side_px, noise_size
        widths = (width, 3 * width, 6 * width, 8 * width)
        self.condition = Condition(noise_size, labels, CONDITION_SIZE)
        self.embed = nn.Conv2d(2, EMBEDDING, 3, padding=1)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.film = Film(widths[3], CONDITION_SIZE)
        self.up = nn.Conv2d(widths[3] + widths[2], widths[2], 3, padding=1)
        steps = list(zip(reversed(widths[1:3]), reversed(widths[:2]), strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in steps)
        self.modulations = nn.ModuleList(
            FeatureModulation(2 * b, b, embedding_size=EMBEDDING, condition_size=CONDITION_SIZE)
            for _, b in steps
        )
        self.focus = DefectFocus(widths[0])

    def forward(
        self, image: Tensor, mask: Tensor, label: Tensor, scale: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The foreground that the mask asks for, and how much of it covers the crop.

        Shapes: image (B, S, S, 3) uint8, mask (B, S, S) uint8 0..255, label (B,) int64, scale (B,),
                noise (B, noise_size) -> foreground (B, 3, S, S), alpha (B, 1, S, S), both in 0..1.
        """
        condition_bc = self.condition(noise, label, scale)
        mask_bchw = mask[:, None].float() / 255
        soft_bchw = around(mask_bchw, 3)
        embedding = F.leaky_relu(self.embed(torch.cat([mask_bchw, soft_bchw], dim=1)), 0.2)
        pixels = to_unit(image)
        fine = F.leaky_relu(self.stem(pixels), 0.2)
        middle = self.encoder[0](fine)
        coarse = self.encoder[1](middle)
        deepest = self.encoder[2](coarse)
        x = F.leaky_relu(self.film(deepest, condition_bc), 0.2)
        x = F.leaky_relu(self.up(torch.cat([double(x), coarse], dim=1)), 0.2)
        for narrow, modulate, skip, hint in zip(
            self.narrow,
            self.modulations,
            (middle, fine),
            (F.avg_pool2d(embedding, 2), embedding),
            strict=True,
        ):
            x = modulate(torch.cat([double(narrow(x)), skip], dim=1), hint, condition_bc)
        foreground, alpha = self.focus(x, (pixels + 1) / 2)
        return foreground, alpha


class DefectFocus(nn.Module):
    """Features -> foreground, told relative to the local mean of the crop, and alpha."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 4, 3, padding=1),
        )

    def forward(self, x_bchw: Tensor, unit_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, S, S) and the crop in 0..1 -> foreground (B, 3, S, S), alpha (B, 1, S, S)."""
        change, alpha = self.layers(x_bchw).split((3, 1), dim=1)
        foreground = (around(unit_bchw, 5) + change.tanh()).clamp(0, 1)
        return foreground, (alpha + 2.0).sigmoid()


def spatial_noise_chw(side_px: int) -> tuple[int, int, int]:
    """Channels, height and width of the noise at the bottleneck of a crop of that side."""
    return SPATIAL_NOISE, side_px // 16, side_px // 16


def around(x_bchw: Tensor, cells: int) -> Tensor:
    """A local mean over `cells` × `cells` cells of 4 × 4 pixels: cheap, and smooth enough."""
    coarse = F.avg_pool2d(x_bchw, 4)
    mean = F.avg_pool2d(coarse, cells, 1, cells // 2, count_include_pad=False)
    return F.interpolate(mean, scale_factor=4.0, mode="bilinear")


def to_unit(image_bhwc: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in -1..1."""
    return image_bhwc.permute(0, 3, 1, 2).float() / 127.5 - 1
