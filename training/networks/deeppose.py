"""The keypoint model that regresses: points with confidence from one look, refined on sub-images.

Shape suffixes: b batch, k slots, c channels, h height, w width, n sub-images.

Source: "DeepPose: Human Pose Estimation via Deep Neural Networks", Toshev & Szegedy 2014
(arXiv:1312.4659): coordinates regressed from the whole picture, then again on sub-images cut around
them at full resolution. There a body has a known number of joints; here a slot for each coarse
region of the picture says whether it holds a defect at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.encoders import lite0_encoder, scale_pixels
from training.networks.locators import PRIOR_LOGIT

REGION_PX = 32
"""A slot answers for so many pixels of the look, squared."""
JITTER_SHARE = 0.1
"""Standard deviation by which places are moved in training, of a sub-image's side."""
LOGIT, X, Y, SIGMA = range(4)
"""What is told of a point: logit; place and standard deviation in pixels of the picture."""


class Lesson(NamedTuple):
    """What a network in training says: every slot, then some of them before and after refining."""

    rough_bk4: Tensor
    tried_bn4: Tensor
    fine_bn4: Tensor


class DeepPose(nn.Module):
    """A first glance at the look, and one refinement of its strongest slots on sub-images."""

    def __init__(self, look_hw: tuple[int, int], side_px: int, refined: int) -> None:
        super().__init__()
        self.look_hw, self.side_px, self.refined = look_hw, side_px, refined
        self.glance = Glance(look_hw)
        self.refinement = Refinement(side_px)

    def forward(
        self,
        image_bhwc: Tensor,
        look_bhwc: Tensor,
        size_b2: Tensor | None = None,
        hints_bn: Tensor | None = None,
    ) -> Tensor | Lesson:
        """Pictures (B, H, W, 3) and their looks, uint8 -> points (B, K, 4), no order among them.

        Slots that were not refined stay beneath all that were, in their own order. In training
        pictures fill only `size_b2` (width, height) of their arrays, and as many strongest slots
        as hinted ones are refined, from places moved about as a first glance is off.
        """
        if size_b2 is not None and hints_bn is not None:
            return self._learn(image_bhwc, look_bhwc, size_b2, hints_bn)
        rough_bk4 = self.glance(look_bhwc, size_of(image_bhwc))
        strongest_bn, slots_bn = rough_bk4[..., LOGIT].topk(self.refined)
        fine_bn4 = self._refine(image_bhwc, _take(rough_bk4, slots_bn))
        lowered_b = (fine_bn4[..., LOGIT].amin(1) - strongest_bn[:, -1]).clamp(max=0.0)
        logits_bk1 = rough_bk4[..., :1] + lowered_b[:, None, None]
        beneath_bk4 = torch.cat([logits_bk1, rough_bk4[..., 1:]], 2)
        return beneath_bk4.scatter(1, slots_bn[..., None].expand(-1, -1, 4), fine_bn4)

    def _learn(
        self, image_bhwc: Tensor, look_bhwc: Tensor, size_b2: Tensor, hints_bn: Tensor
    ) -> Lesson:
        rough_bk4 = self.glance(look_bhwc, size_b2)
        slots_bn = torch.cat([rough_bk4[..., LOGIT].topk(hints_bn.shape[1]).indices, hints_bn], 1)
        tried_bn4 = _take(rough_bk4, slots_bn).detach()
        moved = JITTER_SHARE * self.side_px * torch.randn_like(tried_bn4[..., X : Y + 1])
        tried_bn4[..., X : Y + 1] += moved
        return Lesson(rough_bk4, tried_bn4, self._refine(image_bhwc, tried_bn4))

    def _refine(self, image_bhwc: Tensor, points_bn4: Tensor) -> Tensor:
        squares = cut_squares(image_bhwc, points_bn4[..., X : Y + 1], self.side_px)
        refined: Tensor = self.refinement(squares, points_bn4)
        return refined


class Glance(nn.Module):
    """The whole picture at once: a slot for each coarse region regresses one point."""

    def __init__(self, look_hw: tuple[int, int], width: int = 128) -> None:
        super().__init__()
        self.slots_hw = (look_hw[0] // REGION_PX, look_hw[1] // REGION_PX)
        self.encoder = _keep_edges(lite0_encoder(out_indices=(2, 3, 4)))
        self.mix = nn.Sequential(
            nn.Conv2d(40 + 112 + 320, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.around = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.head = nn.Conv2d(width, 4, 1)
        _start_unsure(self.head)

    def forward(self, look_bhwc: Tensor, size_xy: Tensor) -> Tensor:
        """Looks (B, h, w, 3) uint8 and sizes (B, 2) of their pictures -> (B, K, 4), rows first."""
        fine, middle, coarse = self.encoder(scale_pixels(look_bhwc))
        near = self.mix(torch.cat([F.max_pool2d(fine, 4), F.max_pool2d(middle, 2), coarse], 1))
        whole = near.mean((2, 3), keepdim=True).expand_as(near)
        told_bk4 = self.head(self.around(torch.cat([near, whole], 1))).flatten(2).transpose(1, 2)
        region_b2 = size_xy / torch.tensor(self.slots_hw[::-1], device=size_xy.device)
        region_b12 = region_b2[:, None]
        points = (self.anchors().to(told_bk4) + told_bk4[..., X : Y + 1]) * region_b12
        sigma = region_b12.mean(2, keepdim=True) * _positive(told_bk4[..., SIGMA:])
        return torch.cat([told_bk4[..., :1], points, sigma], 2)

    def anchors(self) -> Tensor:
        """Centres (K, 2) of the regions as x, y, in regions."""
        rows, columns = self.slots_hw
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], 1) + 0.5


class Refinement(nn.Module):
    """Full resolution around a point: where it really is, and whether it is one."""

    def __init__(self, side_px: int, width: int = 64) -> None:
        super().__init__()
        self.side_px = side_px
        cells = side_px // REGION_PX
        self.encoder = _keep_edges(lite0_encoder(out_indices=(4,)))
        self.narrow = nn.Sequential(
            nn.Conv2d(320, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        last = nn.Linear(2 * width, 4)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(width * cells**2, 2 * width), nn.ReLU(), last)

    def forward(self, squares_bnhwc: Tensor, points_bn4: Tensor) -> Tensor:
        """Sub-images (B, N, S, S, 3) uint8 of points (B, N, 4) -> the points, refined."""
        (features,) = self.encoder(scale_pixels(squares_bnhwc.flatten(0, 1)))
        told = self.head(self.narrow(features).flatten(1)).unflatten(0, points_bn4.shape[:2])
        places = points_bn4[..., X : Y + 1] + 0.5 * self.side_px * told[..., X : Y + 1]
        sigma = 0.5 * self.side_px * _positive(told[..., SIGMA:])
        return torch.cat([points_bn4[..., :1] + told[..., :1], places, sigma], 2)


def cut_squares(image_bhwc: Tensor, points_bn2: Tensor, side_px: int) -> Tensor:
    """Squares (B, N, S, S, 3) around points, pixel by pixel; beyond the picture its edge repeats.

    Pixels are gathered, not sampled between: a whole picture as floats, which sampling needs,
    costs more than all the rest.
    """
    batch, height, width, _ = image_bhwc.shape
    corner = (points_bn2 - 0.5 * side_px).round().long()[..., None] + torch.arange(
        side_px, device=image_bhwc.device
    )
    columns = corner[:, :, 0].clamp(min=0).minimum(torch.as_tensor(width - 1))
    rows = corner[:, :, 1].clamp(min=0).minimum(torch.as_tensor(height - 1))
    first = torch.arange(batch, device=image_bhwc.device)[:, None, None] * height
    index = ((first + rows) * width)[..., None] + columns[..., None, :]
    pixels = image_bhwc.reshape(-1, 3).index_select(0, index.flatten())
    return pixels.reshape(*points_bn2.shape[:2], side_px, side_px, 3)


def size_of(image_bhwc: Tensor) -> Tensor:
    """Width and height (B, 2) float of pictures, in a graph too."""
    height, width = image_bhwc.shape[1], image_bhwc.shape[2]
    size = torch.stack([torch.as_tensor(width), torch.as_tensor(height)]).float()
    return size.to(image_bhwc.device).expand(image_bhwc.shape[0], 2)


def _take(told_bk4: Tensor, slots_bn: Tensor) -> Tensor:
    return told_bk4.gather(1, slots_bn[..., None].expand(-1, -1, 4))


def _keep_edges(encoder: nn.Module) -> nn.Module:
    """Leave ImageNet's edges and textures, down to stride 4, as they are: half of a step's time."""
    for name in ("conv_stem", "bn1", "blocks.0", "blocks.1"):
        encoder.get_submodule(name).requires_grad_(False)
    return encoder


def _positive(told: Tensor) -> Tensor:
    """A share from what a head told: 0.25 at the start, never 0."""
    return 0.25 * told.clamp(-4.0, 4.0).exp()


def _start_unsure(head: nn.Conv2d) -> None:
    nn.init.normal_(head.weight, std=0.01)
    assert head.bias is not None
    with torch.no_grad():
        head.bias.copy_(torch.tensor([PRIOR_LOGIT, 0.0, 0.0, 0.0]))
