"""The segmenter that tells what pairs are worth: a small U-Net on crops of whole pictures.

Shape suffixes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from models.arrays import Mask, RgbImage, Scores
from training.data import Record
from training.losses import dice_loss
from training.metrics import average_precision_of, best_f1, count_scores, image_auroc
from training.networks.encoders import load_lite0_weights, scale_pixels
from training.recipes import DownstreamRecipe
from training.trainers.lessons import Lesson
from training.trainers.loop import Batch, Judgement
from training.trainers.sheets import tile

STRIDE_PX = 32
DECODER_CHANNELS = (96, 48, 32, 24, 16)
"""Narrow, so that a step costs little: the encoder, not the decoder, knows what a surface is."""
SMOOTHING_PX = 2.0
"""A picture is as defective as its highest score, smoothed so that no single pixel decides."""


class PairSegmenter(nn.Module):
    """U-Net with an ImageNet encoder; one logit a pixel, positive on defects of any label.

    Source: "U-Net", Ronneberger et al. 2015 (arXiv:1505.04597), by segmentation-models-pytorch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = smp.Unet(
            "tu-tf_efficientnet_lite0",
            encoder_weights=None,
            decoder_channels=DECODER_CHANNELS,
            classes=1,
        )
        load_lite0_weights(self.network.encoder)

    def forward(self, image_bhwc: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), sides multiples of 32 -> logits (B, 1, H, W)."""
        logits: Tensor = self.network(scale_pixels(image_bhwc))
        return logits


class PairTask:
    """A segmenter that learns on the crops of a lesson, all of it, step by step."""

    name = product = "pairs"

    def __init__(
        self, network: nn.Module, lesson: Lesson, recipe: DownstreamRecipe, judge: PictureJudge
    ) -> None:
        self.lesson, self.recipe, self.picture_judge = lesson, recipe, judge
        self.networks: dict[str, nn.Module] = {self.name: network}
        rate = recipe.schedule.learning_rate
        optimizer = AdamW(network.parameters(), lr=rate, weight_decay=0.01)
        for group in optimizer.param_groups:
            group["initial_lr"] = rate
        self.optimizers: dict[str, Optimizer] = {"adamw": optimizer}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Crops of the lesson."""
        return self.lesson.draw_batch(self.recipe, rng)

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step on binary cross-entropy and Dice."""
        network, optimizer = self.networks[self.name].train(), self.optimizers["adamw"]
        logits_b1hw = network(batch["image"]).float()
        logits_b2hw = torch.cat([torch.zeros_like(logits_b1hw), logits_b1hw], dim=1)
        entropy = F.cross_entropy(logits_b2hw, batch["mask"])
        dice = dice_loss(logits_b2hw, batch["mask"])
        optimizer.zero_grad()
        fabric.backward(entropy + dice)
        optimizer.step()
        return {"entropy": entropy.detach(), "dice": dice.detach()}

    def judge(self, network: nn.Module) -> Judgement:
        """The figures on whole pictures."""
        return self.picture_judge(network)


class PictureJudge:
    """Scores whole pictures at the view's scale, pixel by pixel.

    Figures: `picture_ap` the mean over defect pictures of pixel AP; `pooled_ap`, `f1_max` and
    `iou` (at the threshold of the best F1) over all pixels of all pictures, normal ones too;
    `image_auroc` of the highest score, smoothed.
    """

    def __init__(self, records: Sequence[Record], view: float) -> None:
        self.records = tuple(records)
        self.pictures = [look_at(record, view) for record in records]

    def __call__(self, network: nn.Module) -> Judgement:
        """The figures of a network; its score is the mean over pictures of pixel AP."""
        counts, peaks = [], []
        for image, truth in self.pictures:
            logits = predict_logits(image, network)
            counts.append(count_scores(logits, truth))
            peaks.append(float(cv2.GaussianBlur(_sigmoid(logits), (0, 0), SMOOTHING_PX).max()))
        shows_defect = [bool(truth.any()) for _, truth in self.pictures]
        pooled = np.sum(counts, axis=0)
        f1_max, iou = best_f1(pooled)
        each = [
            average_precision_of(c) for c, shows in zip(counts, shows_defect, strict=True) if shows
        ]
        figures = {
            "picture_ap": float(np.mean(each)),
            "pooled_ap": average_precision_of(pooled),
            "f1_max": f1_max,
            "iou": iou,
            "image_auroc": image_auroc(peaks, shows_defect),
        }
        return Judgement(figures["picture_ap"], figures, tile([], columns=1))


def look_at(record: Record, view: float) -> tuple[RgbImage, Mask]:
    """A whole picture and its truth at the view's scale; a pixel is defect from half of it on."""
    if view == 1:
        return record.image, record.labels > 0
    size = tuple(max(1, round(view * side)) for side in record.image.shape[1::-1])
    image = cv2.resize(record.image, size, interpolation=cv2.INTER_AREA)
    share = cv2.resize((record.labels > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8), share >= 0.5


def predict_logits(image: RgbImage, network: nn.Module) -> Scores:
    """The logits of a whole picture, which is mirrored at its edge up to multiples of 32.

    Shapes: (H, W, 3) uint8 -> (H, W) float32.
    """
    height, width = image.shape[:2]
    bottom, right = -height % STRIDE_PX, -width % STRIDE_PX
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    device = next(network.parameters()).device
    with torch.no_grad():
        logits_b1hw = network(torch.from_numpy(padded[None]).to(device)).float().cpu()
    return np.ascontiguousarray(logits_b1hw[0, 0, :height, :width].numpy())


def _sigmoid(logits: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
