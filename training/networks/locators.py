"""The keypoint model: a dense heatmap of defect centres with offsets.

Shape suffixes: b batch, c channels, h height, w width of the picture or of the heatmap.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.encoders import lite0_encoder, scale_pixels

CELLS = 256
"""Most cells that leave a graph as peaks: far more than crops, so that coverage may choose."""
LARGEST_LOGIT = 40.0
"""A sigmoid tells no more than 1 beyond it."""
PATCH_PX = 4
"""Side of the patches that the plain locator's stem takes."""
PRIOR_LOGIT = -4.6
"""Confidence 0.01 everywhere at the start, so that the empty cells do not drown the first steps."""


def build_locator(encoder: Literal["plain", "lite0"]) -> PlainLocator | Lite0Locator:
    """The locator that a recipe names; both answer (B, 3, H/8, W/8): logit, dx, dy in cells."""
    return PlainLocator() if encoder == "plain" else Lite0Locator()


class PlainLocator(nn.Module):
    """Plain convolutions at full resolution: for pits of a few pixels in 12 MP pictures.

    A 4 × 4 stem of stride 4 takes the pixels, residual blocks look around at strides 8 and 16; one
    at each: two more, and a head of 3 × 3, covered no defect more and cost half as much again.
    Plain 3 × 3 convolutions run three times faster on a CPU than depthwise ones of equal width.
    """

    stride_px = 8
    multiple_px = 16

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(3, width // 2, kernel=PATCH_PX, stride=PATCH_PX),
            _conv(width // 2, width, stride=2),
        )
        self.near = Residual(width)
        self.far = nn.Sequential(_conv(width, 2 * width, stride=2), Residual(2 * width, dilation=2))
        self.back = nn.Conv2d(2 * width, width, 1)
        self.head = _head(width, kernel=1)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """uint8 pictures (B, H, W, 3), sides multiples of 16 -> (B, 3, H/8, W/8)."""
        return self.field_of(self.stem[0](scale_pixels(image_bhwc)))

    def field_of(self, patches_bchw: Tensor) -> Tensor:
        """The field, from what the stem's first half tells of each patch."""
        near = self.near(self.stem[1](patches_bchw))
        field: Tensor = self.head(near + _double(self.back(self.far(near))))
        return field


class Lite0Locator(nn.Module):
    """ImageNet features at half resolution: for defects that must be told from dirt and oil."""

    stride_px = 8
    multiple_px = 32

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.encoder = lite0_encoder(out_indices=(1, 2, 3))
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (24, 40, 112))
        self.merge = nn.ModuleList([Residual(width), Residual(width)])
        self.head = _head(width)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """uint8 pictures (B, H, W, 3), sides multiples of 32 -> (B, 3, H/8, W/8)."""
        half_bchw = F.avg_pool2d(scale_pixels(image_bhwc), 2)
        fine, middle, coarse = (
            layer(features)
            for layer, features in zip(self.lateral, self.encoder(half_bchw), strict=True)
        )
        middle = self.merge[0](middle + _double(coarse))
        field: Tensor = self.head(self.merge[1](fine + _double(middle)))
        return field


class WithPeaks(nn.Module):
    """A heatmap and its strongest cells, so that nobody needs the whole field to find them."""

    def __init__(self, network: nn.Module, stride_px: int) -> None:
        super().__init__()
        self.network = network
        self.stride_px = stride_px

    def forward(self, image_bhwc: Tensor) -> tuple[Tensor, Tensor]:
        """The network's field (B, 3, h, w), and of it `strongest_cells`."""
        field = self.network(image_bhwc)
        return field, strongest_cells(field, self.stride_px)


def strongest_cells(field_bchw: Tensor, stride_px: int) -> Tensor:
    """The CELLS strongest cells: (B, K, 4) logit, x, y in pixels, 1 where it is a local maximum.

    Local maxima of 3 × 3 cells come first, then other cells, each strongest first. Fields of fewer
    cells give all of them.
    """
    logits_b1hw = field_bchw[:, :1].clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    is_peak_b1hw = (logits_b1hw == F.max_pool2d(logits_b1hw, 3, 1, 1)).float()
    cells_bk = _rank((logits_b1hw - 2 * LARGEST_LOGIT * (1 - is_peak_b1hw)).flatten(1))
    columns = field_bchw.shape[3]
    corner_b2k = torch.stack([cells_bk % columns, cells_bk // columns], 1)
    offsets_b2k = _take(field_bchw[:, 1:], cells_bk).clamp(-0.5, 0.5)
    points_b2k = (corner_b2k + 0.5 + offsets_b2k) * stride_px
    told = (_take(logits_b1hw, cells_bk), points_b2k, _take(is_peak_b1hw, cells_bk))
    return torch.cat(told, 1).transpose(1, 2)


class Residual(nn.Module):
    """x + two normalised 3 × 3 convolutions."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = _conv(width, width, dilation=dilation)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Same shape out as in."""
        return F.relu(x_bchw + self.second(self.first(x_bchw)))


class Telling(nn.Conv2d):
    """A 1 × 1 convolution as a matrix product: of whole numbers it gives floats in one go.

    An int8 convolution would round logits to 256 levels, and a float one needs float features.
    """

    def forward(self, x_bchw: Tensor) -> Tensor:
        """What the convolution answers; its bias is added plane by plane, which is faster."""
        assert self.bias is not None
        told_bhwc = F.linear(x_bchw.permute(0, 2, 3, 1), self.weight.flatten(1))
        return told_bhwc.permute(0, 3, 1, 2) + self.bias[:, None, None]


def _conv(
    inside: int, outside: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    padding = 0 if kernel == stride else dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def _head(width: int, *, kernel: int = 3) -> nn.Sequential:
    last = Telling(width, 3, 1)
    nn.init.normal_(last.weight, std=0.01)
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(torch.tensor([PRIOR_LOGIT, 0.0, 0.0]))
    return nn.Sequential(_conv(width, width, kernel=kernel), last)


def _rank(values_bk: Tensor) -> Tensor:
    """Where the CELLS greatest values are, the first of equal ones first, as ONNX has it."""
    if torch.onnx.is_in_onnx_export():
        count = torch.minimum(torch.as_tensor(values_bk.shape[1]), torch.as_tensor(CELLS))
        return values_bk.topk(cast(int, count)).indices  # the tracer takes it as it is
    return values_bk.sort(descending=True, stable=True).indices[:, :CELLS]


def _take(planes_bchw: Tensor, cells_bk: Tensor) -> Tensor:
    """The cells' values of every plane: (B, C, K)."""
    planes_bcn = planes_bchw.flatten(2)
    return planes_bcn.gather(2, cells_bk[:, None].expand(-1, planes_bcn.shape[1], -1))


def _double(x_bchw: Tensor) -> Tensor:
    return F.interpolate(x_bchw, scale_factor=2.0, mode="bilinear")
