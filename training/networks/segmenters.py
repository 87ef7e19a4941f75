"""The segmenter: DeepLabV3+ (default) or plain DeepLabV3, by segmentation-models-pytorch."""

from __future__ import annotations

from typing import Literal

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from training.networks.encoders import load_lite0_weights, scale_pixels


class Segmenter(nn.Module):
    """Outlines the defects of a crop; one logit per pixel for the background and each label.

    Source: "Rethinking Atrous Convolution", Chen et al. 2017 (arXiv:1706.05587), and
    "Encoder-Decoder with Atrous Separable Convolution", 2018 (arXiv:1802.02611).
    """

    def __init__(
        self, labels: int, *, side_px: int, decoder: Literal["DeepLabV3Plus", "DeepLabV3"]
    ) -> None:
        super().__init__()
        build = {"DeepLabV3Plus": smp.DeepLabV3Plus, "DeepLabV3": smp.DeepLabV3}[decoder]
        self.side_px = side_px
        self.network = build(
            "tu-tf_efficientnet_lite0",
            encoder_weights=None,
            decoder_channels=128,
            classes=1 + labels,
        )
        load_lite0_weights(self.network.encoder)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """uint8 crops (B, side, side, 3) -> logits (B, 1 + labels, side, side)."""
        logits: Tensor = self.network(scale_pixels(image_bhwc))
        return logits
