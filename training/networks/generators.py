"""The two generators: one imagines masks, one paints the defect that a mask asks for.

Both begin from a book of real defects (`books`), and all that their encoder and decoder add is a
residual: an untrained generator already answers with a real defect, warped by its noise. Parts that
are not asked for (no pages, not modulated, not focused) make room for the plainest that can stand
in, so that what a part is worth can be measured.
Shape suffixes: b batch, c channels, h height, w width (of the crop). Pixels, masks and object masks
come as uint8 and are scaled inside.
Source: patent "A defect image generation method", claims 2, 3 and 8.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.blocks import (
    Condition,
    Down,
    FeatureModulation,
    Film,
    PlainStep,
    double,
)
from training.networks.books import (
    CHOICE_NOISE,
    CODE_NOISE,
    OUTLINE_SIDE,
    WARP_NOISE,
    Book,
    Lines,
    box_of,
    square_grid,
)
from training.networks.focus import (
    RESIDUAL_STD,
    DefectFocus,
    PlainHead,
    around,
    rim_of,
    surroundings,
)

CONDITION_SIZE = 64
EMBEDDING = 16
SHAPE_SCALE = 4.0
"""A shape's logits divided by it are about as large as pixels."""
STRENGTH_SPREAD = 0.25
"""Standard deviation of a filling's log strength, to begin with."""
FILLING_FREEDOM = 0.25
"""How far fillings are warped, as a share of how far shapes are: they go with their outline."""
BOX_SHARE = 0.9
"""The share of a page's side that the mask's box covers; around it the page is a margin."""


class MaskGenerator(nn.Module):
    """Stage 1: a normal crop and Gaussian noise -> a soft mask; other noise, another mask.

    The noise opens the book of shapes. The encoder finds intermediate defect features in crop and
    shape, at half resolution; the noise guides the decoder through FiLM and grains at every scale;
    what it adds to the shape's logits, upsampled, a sigmoid brings to 0..1.
    """

    grid: Tensor

    def __init__(self, labels: int, *, side_px: int, width: int, pages: int) -> None:
        super().__init__()
        self.side_px, self.noise_size = side_px, CODE_NOISE
        self.spatial_noise_chw = spatial_noise_chw(side_px)
        self.book = Book(pages, 1, side_px) if pages else None
        self.register_buffer("grid", square_grid(side_px))
        widths = (width, 2 * width, 4 * width, 6 * width)
        self.condition = Condition(CHOICE_NOISE, labels, CONDITION_SIZE)
        self.stem = nn.Conv2d(5, widths[0], 4, 2, 1)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.bottleneck = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.grains = _grain_weights(*reversed(widths))
        self.films = nn.ModuleList(Film(w, CONDITION_SIZE) for w in reversed(widths))
        self.decoder = nn.ModuleList(
            nn.Conv2d(a + b, b, 3, padding=1)
            for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)
        if pages:
            nn.init.normal_(self.head.weight, std=RESIDUAL_STD)

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
                scale (B,) log2 of picture pixels per crop pixel, noise (B, CODE_NOISE), spatial
                noise (B, 1, S/2, S/2) -> mask (B, 1, S, S) in 0..1; S a multiple of 16.
        """
        code_bc, warp_bc = torch.split(noise, [CHOICE_NOISE, WARP_NOISE], dim=1)
        object_bchw = object[:, None].float() / 127.5 - 1
        shape_bchw = torch.zeros_like(object_bchw)
        if self.book is not None:
            share_bp = self.book.choose(code_bc, label, scale_b=scale)
            shape_bchw = self.book.open(share_bp, warp_bc, _lines_of(self.grid))
        x = torch.cat([to_unit(image), object_bchw, shape_bchw / SHAPE_SCALE], dim=1)
        skips = self._encode(x)
        grains = _octaves(spatial_noise, len(self.grains))
        x = self._decode(skips, grains, self.condition(code_bc, label, scale))
        return (shape_bchw + double(self.head(x))).sigmoid()

    def _encode(self, x_bchw: Tensor) -> list[Tensor]:
        """Features at S/2, S/4, S/8 and S/16."""
        features = [F.leaky_relu(self.stem(x_bchw), 0.2)]
        for down in self.encoder:
            features.append(down(features[-1]))
        return features

    def _decode(self, features: list[Tensor], grains: list[Tensor], condition_bc: Tensor) -> Tensor:
        """(B, width, S/2, S/2) of the features, guided by noise at every scale."""
        *skips, deepest = features
        first, *others = (w * g for w, g in zip(self.grains, grains, strict=True))
        x = self.bottleneck(deepest) + first
        x = F.leaky_relu(self.films[0](x, condition_bc), 0.2)
        steps = zip(self.films[1:], self.decoder, reversed(skips), others, strict=True)
        for film, conv, skip, grain in steps:
            x = conv(torch.cat([double(x), skip], dim=1)) + grain
            x = F.leaky_relu(film(x, condition_bc), 0.2)
        return x


class DefectGenerator(nn.Module):
    """Stage 2: a normal crop and a mask -> the defect's foreground and its alpha.

    encoder -> decoder that ends in two consecutive feature-modulation modules -> defect-focus head.
    The noise opens the book of fillings, laid over the mask's box. The encoder sees the crop with
    the defect's place hidden under the light around it: a square whose real defect was painted over
    and one of a normal picture look alike to it, and nothing of the painting over leaks.
    """

    grid: Tensor

    def __init__(
        self,
        labels: int,
        *,
        side_px: int,
        width: int,
        pages: int,
        modulated: bool = True,
        focused: bool = True,
    ) -> None:
        super().__init__()
        self.side_px, self.noise_size = side_px, defect_noise_size(side_px)
        self.book = Book(pages, 3, side_px // 2, freedom=FILLING_FREEDOM) if pages else None
        if pages:
            self.strength = nn.Parameter(torch.tensor(STRENGTH_SPREAD))
        self.register_buffer("grid", square_grid(side_px))
        widths = (width, 3 * width, 6 * width, 8 * width)
        self.condition = Condition(CHOICE_NOISE, labels, CONDITION_SIZE)
        self.embed = nn.Conv2d(2, EMBEDDING, 3, padding=1)
        self.stem = nn.Conv2d(6, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        self.film = Film(widths[3], CONDITION_SIZE)
        self.up = nn.Conv2d(widths[3] + widths[2], widths[2], 3, padding=1)
        steps = list(zip(reversed(widths[1:3]), reversed(widths[:2]), strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in steps)
        self.modulations = nn.ModuleList(
            FeatureModulation(2 * b, b, embedding_size=EMBEDDING, condition_size=CONDITION_SIZE)
            if modulated
            else PlainStep(2 * b, b, embedding_size=EMBEDDING)
            for _, b in steps
        )
        self.grains = _grain_weights(widths[2], 2 * widths[1], 2 * widths[0])
        self.focus = DefectFocus(widths[0], has_book=pages > 0) if focused else PlainHead(widths[0])

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        label: Tensor,
        scale: Tensor,
        noise: Tensor,
        share: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The foreground that the mask asks for, and how much of it covers the crop.

        `share` opens the book at given pages instead of those that the noise likes.

        Shapes: image (B, S, S, 3) uint8, mask (B, S, S) uint8 0..255, label (B,) int64, scale (B,),
                noise (B, defect_noise_size(S)), share (B, 2 pages) -> foreground (B, 3, S, S),
                alpha (B, 1, S, S), both in 0..1; S a multiple of 8.
        """
        sizes = [CHOICE_NOISE, WARP_NOISE, 1, self.side_px**2]
        code_bc, warp_bc, strong_bc, grain_bc = torch.split(noise, sizes, dim=1)
        unit_bchw, mask_bchw = image.permute(0, 3, 1, 2).float() / 255, mask[:, None].float() / 255
        light_bchw = surroundings(unit_bchw, mask_bchw)
        filling_bchw = torch.zeros_like(unit_bchw)
        if self.book is not None:
            lines = _lines_of(self.grid)
            box = box_of(mask_bchw, lines[0][0])
            if share is None:
                outline_bchw = outline_in(mask_bchw, box)
                share = self.book.choose(code_bc, label, outline_bchw=outline_bchw)
            filling_bchw = self.book.open(share, warp_bc, _place(lines, box))
            filling_bchw = filling_bchw * (self.strength * strong_bc[:, :, None, None]).exp()
        hidden_bchw = rim_of(mask_bchw)
        pixels_bchw = (unit_bchw * (1 - hidden_bchw) + light_bchw * hidden_bchw) * 2 - 1
        features = self._encode(torch.cat([pixels_bchw, filling_bchw], dim=1))
        grain_bchw = grain_bc.view(-1, 1, self.side_px, self.side_px)
        grains = _octaves(grain_bchw, len(self.grains))
        condition_bc = self.condition(code_bc, label, scale)
        x = self._decode(features, grains, self._embed(mask_bchw), condition_bc)
        foreground, alpha = self.focus(x, light_bchw, filling_bchw)
        return foreground, alpha

    def _embed(self, mask_bchw: Tensor) -> Tensor:
        """What the modulations are told of the mask and its nearness: (B, EMBEDDING, S, S)."""
        near_bchw = torch.cat([mask_bchw, around(mask_bchw, 3)], dim=1)
        return F.leaky_relu(self.embed(near_bchw), 0.2)

    def _encode(self, x_bchw: Tensor) -> list[Tensor]:
        """Features at S, S/2, S/4 and S/8."""
        features = [F.leaky_relu(self.stem(x_bchw), 0.2)]
        for down in self.encoder:
            features.append(down(features[-1]))
        return features

    def _decode(
        self,
        features: list[Tensor],
        grains: list[Tensor],
        embedding_bchw: Tensor,
        condition_bc: Tensor,
    ) -> Tensor:
        """(B, width, S, S) of the features: noise at the bottom, mask and noise on the way up."""
        fine, middle, coarse, deepest = features
        first, *others = (w * g for w, g in zip(self.grains, grains, strict=True))
        x = F.leaky_relu(self.film(deepest, condition_bc), 0.2)
        x = self.up(torch.cat([double(x), coarse], dim=1))
        x = F.leaky_relu(x + first, 0.2)
        hints = (F.avg_pool2d(embedding_bchw, 2), embedding_bchw)
        steps = zip(self.narrow, self.modulations, (middle, fine), hints, others, strict=True)
        for narrow, modulate, skip, hint, grain in steps:
            x = torch.cat([double(narrow(x)), skip], dim=1) + grain
            x = modulate(x, hint, condition_bc)
        return x


def spatial_noise_chw(side_px: int) -> tuple[int, int, int]:
    """Channels, height and width of a mask generator's grains for a crop of that side."""
    return 1, side_px // 2, side_px // 2


def defect_noise_size(side_px: int) -> int:
    """How much noise a defect generator takes: its book's, its strength, and one grain a pixel."""
    return CODE_NOISE + 1 + side_px**2


def outline_in(mask_bchw: Tensor, box: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """A mask as it fills the page that is laid over its box: (B, 1, 16, 16) in 0..1."""
    x, y, half = (edge[:, None, None] for edge in box)
    page = square_grid(OUTLINE_SIDE).to(mask_bchw.device) / BOX_SHARE
    grid = torch.stack([x + half * page[..., 0], y + half * page[..., 1]], -1)
    return F.grid_sample(mask_bchw, grid, align_corners=False)


def to_unit(image_bhwc: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in -1..1."""
    return image_bhwc.permute(0, 3, 1, 2).float() / 127.5 - 1


def _lines_of(grid: Tensor) -> Lines:
    """The columns and rows of a square's grid."""
    return grid[:, 0, :, 0], grid[:, :, 0, 1]


def _place(lines: Lines, box: tuple[Tensor, Tensor, Tensor]) -> Lines:
    """Where in the page that is laid over a box each column and row of the crop lies: (B, S)."""
    x, y, half = (edge[:, None] for edge in box)
    return (lines[0] - x) / half * BOX_SHARE, (lines[1] - y) / half * BOX_SHARE


def _grain_weights(*widths: int) -> nn.ParameterList:
    """How strong the grain of each scale is in each channel, to begin with little."""
    return nn.ParameterList(nn.Parameter(torch.full((1, width, 1, 1), 0.1)) for width in widths)


def _octaves(noise_bchw: Tensor, count: int) -> list[Tensor]:
    """The noise at `count` scales, the coarsest first, each half the next one's and of variance 1.

    Source: grains at every scale as in "StyleGAN", Karras et al. 2019 (arXiv:1812.04948).
    """
    coarser = [2**k * F.avg_pool2d(noise_bchw, 2**k) for k in reversed(range(1, count))]
    return [*coarser, noise_bchw]
