"""What one arm of the experiment learns from, cut into crops.

A crop shows a defect somewhere in view, real or synthetic, or a piece of a normal picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.arrays import RgbImage
from training.augment import LabelMap, defocus, flip, relight, zoom
from training.data import Record
from training.recipes import DownstreamRecipe
from training.trainers.loop import Batch


@dataclass(frozen=True)
class Lesson:
    """What one arm learns from; `is_augmented` adds flips, light, zoom and focus."""

    defects: Sequence[Record]
    normals: Sequence[Record]
    synthetic: Sequence[Record]
    is_augmented: bool

    def draw_batch(self, recipe: DownstreamRecipe, rng: np.random.Generator) -> Batch:
        """Crops of the recipe's side at its view, with their masks."""
        drawn = [self._draw_crop(recipe, rng) for _ in range(recipe.schedule.batch)]
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in drawn])),
            "mask": torch.from_numpy(np.stack([labels > 0 for _, labels in drawn])).long(),
        }

    def _draw_crop(
        self, recipe: DownstreamRecipe, rng: np.random.Generator
    ) -> tuple[RgbImage, LabelMap]:
        factor = recipe.view
        if self.is_augmented:
            factor *= np.exp(rng.uniform(*np.log(recipe.zoom)))
        pool = self._choose_pool(recipe, rng)
        record = pool[int(rng.integers(len(pool)))]
        centre = draw_centre(record, recipe.side_px / factor, rng)
        image, labels = zoom(record.image, record.labels, centre, recipe.side_px, factor)
        if not self.is_augmented:
            return image, labels
        image, labels = flip(image, labels, rng)
        return defocus(relight(image, rng), rng), labels

    def _choose_pool(self, recipe: DownstreamRecipe, rng: np.random.Generator) -> Sequence[Record]:
        """Normal, real or synthetic pictures; the draw is the same for every arm."""
        shows_defect = rng.random() < recipe.defect_share
        is_synthetic = rng.random() < recipe.synthetic_share
        if not shows_defect:
            return self.normals
        return (self.synthetic if is_synthetic else ()) or self.defects


def draw_centre(record: Record, side_px: float, rng: np.random.Generator) -> tuple[float, float]:
    """The centre of a square that shows some pixel of one of a record's defects, or any place.

    Every pixel of a defect may lie anywhere in the square but close to its edge; the square stays
    in the picture where it fits. Whole pixels, so that a view of 1 copies them.
    """
    height, width = record.image.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    if record.flaws:
        region = record.flaws[rng.integers(len(record.flaws))].region
        inside = np.flatnonzero(region.mask)
        row, column = divmod(int(rng.choice(inside)), region.mask.shape[1])
        away_x, away_y = rng.uniform(-0.45 * side_px, 0.45 * side_px, 2)
        x, y = region.x + column + away_x, region.y + row + away_y
    return _keep_inside(x, side_px, width), _keep_inside(y, side_px, height)


def _keep_inside(middle: float, side_px: float, length_px: int) -> float:
    if length_px <= side_px:
        return float(length_px // 2)
    return float(round(np.clip(middle, side_px / 2, length_px - side_px / 2)))
