"""What story 1 is measured against: one segmenter over whole pictures made small.

It is never sealed. Its pixels are as many as the segmenter of crops is trained on, so that what
differs is where they were spent.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from models.arrays import Mask, RgbImage, Scores
from models.steps.heatmap import confidence_of
from training.augment import LabelMap, defocus, flip, relight
from training.data import Dataset, Record
from training.losses import dice_loss
from training.metrics import SCORE_STEPS, average_precision_of, best_f1, count_scores
from training.networks.segmenters import Segmenter
from training.recipes import Recipe, Schedule, WholeRecipe
from training.trainers.loop import Batch, Judgement
from training.trainers.sheets import mask_sheet

MULTIPLE_PX = 32
"""Sides of a picture that the segmenter sees whole: its features end at this stride."""
CHECKPOINT_EVERY = 25
SHOWN = 12
"""Pictures on a sample sheet."""

Pair = tuple[RgbImage, LabelMap]


class WholeTask:
    """Whole pictures of one width, as many with defects as without, and their label maps."""

    name = product = "whole"

    def __init__(self, network: Segmenter, data: Dataset, recipe: WholeRecipe) -> None:
        self.data, self.recipe = data, recipe
        self.networks: dict[str, nn.Module] = {self.name: network}
        optimizer = AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
        for group in optimizer.param_groups:
            group["initial_lr"] = recipe.learning_rate
        self.optimizers: dict[str, Optimizer] = {"adamw": optimizer}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Pictures with their label maps, the smaller ones mirrored at their far edges."""
        drawn = [self._draw_picture(rng) for _ in range(self.recipe.batch)]
        heights, widths = zip(*(labels.shape for _, labels in drawn), strict=True)
        largest = (max(heights), max(widths))
        images, labels = zip(*(_extend(pair, largest) for pair in drawn), strict=True)
        return {
            "image": torch.from_numpy(np.stack(images)),
            "labels": torch.from_numpy(np.stack(labels).astype(np.int64)),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step on cross-entropy and Dice, as on crops."""
        network, optimizer = self.networks[self.name].train(), self.optimizers["adamw"]
        logits = network(batch["image"]).float()
        entropy = F.cross_entropy(logits, batch["labels"])
        dice = dice_loss(logits, batch["labels"])
        optimizer.zero_grad()
        fabric.backward(entropy + dice)
        optimizer.step()
        return {"entropy": entropy.detach(), "dice": dice.detach()}

    def judge(self, network: nn.Module) -> Judgement:
        """Pixel AP and best Dice on the validation pictures, as small as they are seen."""
        device = next(network.parameters()).device
        counts = np.zeros((2, SCORE_STEPS), np.int64)
        seen: list[RgbImage] = []
        scores: list[Scores] = []
        truths: list[Mask] = []
        for record in self.data.val:
            image, labels = shrink(record, self.recipe.width_px)
            (logits,) = network(torch.from_numpy(image[None]).to(device)).float()
            of_defect = (logits[1:].logsumexp(0) - logits[0]).cpu().numpy()
            counts += count_scores(of_defect, labels > 0)
            if record.flaws and len(seen) < SHOWN:
                seen.append(image)
                scores.append(confidence_of(of_defect))
                truths.append(labels > 0)
        figures = {"pixel_ap": average_precision_of(counts), "pixel_dice": best_f1(counts)[0]}
        sheet = mask_sheet(seen, scores, truths)
        return Judgement(figures["pixel_ap"] + figures["pixel_dice"], figures, sheet)

    def _draw_picture(self, rng: np.random.Generator) -> Pair:
        pool = self.data.train_defects if rng.random() < 0.5 else self.data.train_normals
        image, labels = shrink(pool[rng.integers(len(pool))], self.recipe.width_px)
        image, labels = flip(image, labels, rng)
        return defocus(relight(image, rng), rng), labels


def whole_schedule(recipe: Recipe, data: Dataset) -> Schedule:
    """As many steps as show the network as many pixels as the segmenter of crops was shown."""
    asked, crops = recipe.whole, recipe.segmenter
    hws = [shrunk_hw(record.image.shape[:2], asked.width_px) for record in data.train]
    picture_px = float(np.mean([height * width for height, width in hws]))
    budget_px = crops.schedule.steps * crops.schedule.batch * crops.side_px**2
    steps = max(1, round(budget_px / (asked.batch * picture_px)))
    return Schedule(
        steps=steps,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        validate_every=max(1, -(-steps // asked.validations)),
        checkpoint_every=CHECKPOINT_EVERY,
        ema_decay=asked.ema_decay,
    )


def shrunk_hw(hw: tuple[int, ...], width_px: int) -> tuple[int, int]:
    """The size of a picture at most so wide, both sides multiples of 32."""
    factor = min(1.0, width_px / hw[1])
    height, width = (max(1, round(factor * side / MULTIPLE_PX)) * MULTIPLE_PX for side in hw)
    return height, width


def shrink(record: Record, width_px: int) -> Pair:
    """A picture and its label map, at most so wide."""
    hw = shrunk_hw(record.image.shape[:2], width_px)
    labels = cv2.resize(record.labels, hw[::-1], interpolation=cv2.INTER_NEAREST)
    return shrink_picture(record.image, hw), np.asarray(labels, np.uint8)


def shrink_picture(image: RgbImage, hw: tuple[int, int]) -> RgbImage:
    """A picture at another size, the mean of what each pixel covers."""
    return np.asarray(cv2.resize(image, hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _extend(pair: Pair, hw: tuple[int, int]) -> Pair:
    down, right = (most - side for most, side in zip(hw, pair[1].shape, strict=True))
    edge = cv2.BORDER_REFLECT_101
    image, labels = (
        np.asarray(cv2.copyMakeBorder(pixels, 0, down, 0, right, edge), np.uint8) for pixels in pair
    )
    return image, labels
