"""What generators and critics are built of.

Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Film(nn.Module):
    """Normalise, then scale and shift each channel by a condition: how noise guides a decoder.

    Source: "FiLM", Perez et al. 2018 (arXiv:1709.07871).
    """

    def __init__(self, channels: int, condition_size: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(8, channels // 4), channels, affine=False)
        self.affine = nn.Linear(condition_size, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x_bchw: Tensor, condition_bc: Tensor) -> Tensor:
        """Same shape out as in."""
        gain, shift = self.affine(condition_bc)[:, :, None, None].chunk(2, dim=1)
        modulated: Tensor = self.norm(x_bchw) * (1 + gain) + shift
        return modulated


class FeatureModulation(nn.Module):
    """Normalise, then scale and shift each pixel by the mask there and by the noise.

    A shared embedding of the mask keeps it cheap beside full SPADE.
    Source: patent "A defect image generation method", feature-modulation module; "CLADE", Tan et
    al. 2020 (arXiv:2004.02867).
    """

    def __init__(
        self, inside: int, outside: int, *, embedding_size: int, condition_size: int
    ) -> None:
        super().__init__()
        self.film = Film(inside, condition_size)
        self.spatial = nn.Conv2d(embedding_size, 2 * inside, 1)
        nn.init.normal_(self.spatial.weight, std=0.02)
        self.conv = nn.Conv2d(inside, outside, 3, padding=1)

    def forward(self, x_bchw: Tensor, embedding_bchw: Tensor, condition_bc: Tensor) -> Tensor:
        """(B, inside, h, w) with the mask's embedding (B, e, h, w) -> (B, outside, h, w)."""
        told_bkn = F.pad(embedding_bchw.flatten(2), (0, 0, 0, 1), value=1.0)
        gain, shift = (
            (by_embedding @ told_bkn).view_as(x_bchw)
            for by_embedding in self._weights(condition_bc)
        )
        out: Tensor = self.conv(F.leaky_relu(self.film.norm(x_bchw) * gain + shift, 0.2))
        return out

    def _weights(self, condition_bc: Tensor) -> tuple[Tensor, Tensor]:
        """What the embedding, and 1, are taken by: the noise's scale and shift, then the mask's."""
        gain, shift = self.film.affine(condition_bc)[:, :, None].chunk(2, dim=1)
        weight, bias = self.spatial.parameters()
        (of_gain, of_shift), (plain_gain, plain_shift) = weight.flatten(1).chunk(2), bias.chunk(2)
        of_gain = torch.cat([of_gain, 1 + plain_gain[:, None]], 1)
        of_shift = torch.cat([of_shift, plain_shift[:, None]], 1)
        return (1 + gain) * of_gain, shift * of_gain + of_shift


class PlainStep(nn.Module):
    """Stands in for a feature modulation: a convolution that is shown the mask beside the features.

    Nothing is normalised, scaled or shifted by mask or noise.
    """

    def __init__(self, inside: int, outside: int, *, embedding_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside + embedding_size, outside, 3, padding=1)

    def forward(self, x_bchw: Tensor, embedding_bchw: Tensor, _: Tensor) -> Tensor:
        """(B, inside, h, w) with the mask's embedding (B, e, h, w) -> (B, outside, h, w)."""
        shown = torch.cat([F.leaky_relu(x_bchw, 0.2), embedding_bchw], dim=1)
        out: Tensor = self.conv(shown)
        return out


class Down(nn.Module):
    """Half the side: 4 × 4 convolution of stride 2, normalised."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 4, 2, 1)
        self.norm = nn.GroupNorm(min(8, outside // 4), outside)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, inside, 2h, 2w) -> (B, outside, h, w)."""
        return F.leaky_relu(self.norm(self.conv(x_bchw)), 0.2)


class Condition(nn.Module):
    """Noise, label and scale -> one vector that guides the decoder, by a two-layer MLP."""

    def __init__(self, noise_size: int, labels: int, size: int) -> None:
        super().__init__()
        self.label = nn.Embedding(labels, 16)
        self.layers = nn.Sequential(
            nn.Linear(noise_size + 16 + 1, size), nn.LeakyReLU(0.2), nn.Linear(size, size)
        )

    def forward(self, noise_bc: Tensor, label_b: Tensor, scale_b: Tensor) -> Tensor:
        """(B, noise_size), (B,) int64, (B,) -> (B, size)."""
        parts = [noise_bc, self.label(label_b), scale_b[:, None]]
        vector: Tensor = self.layers(torch.cat(parts, dim=1))
        return vector


def sharp_conv(inside: int, outside: int) -> nn.Module:
    """Half the side with spectral normalisation: what critics are made of."""
    return spectral_norm(nn.Conv2d(inside, outside, 4, 2, 1))


def double(x_bchw: Tensor) -> Tensor:
    """Twice the side, bilinear."""
    return F.interpolate(x_bchw, scale_factor=2.0, mode="bilinear")
