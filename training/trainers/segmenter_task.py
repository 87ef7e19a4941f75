"""The segmenter: the crops that it learns from, and what it is chosen by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from models.arrays import Mask, RgbImage
from models.steps.crops import Window, cut_crop, resize_crop, window_around
from models.steps.heatmap import Peak
from models.steps.outlines import Region, find_regions
from training.augment import LabelMap, defocus, flip, relight, zoom
from training.data import Dataset, Flaw, Record, choose_pool
from training.losses import dice_loss
from training.metrics import pixel_average_precision, pixel_dice
from training.networks.segmenters import Segmenter
from training.recipes import SegmenterRecipe
from training.trainers.locator_task import new_adamw
from training.trainers.loop import Batch, Judgement
from training.trainers.sheets import mask_sheet

LEAST_SIDE_PX, MOST_SHARE = 6, 0.9
"""No zoom makes a defect smaller than so many pixels, or larger than this share of the square."""


class SegmenterTask:
    """Crops around the locator's own peaks: off-centre ones and empty ones among them."""

    name = product = "segmenter"

    def __init__(
        self,
        network: Segmenter,
        data: Dataset,
        recipe: SegmenterRecipe,
        peaks: Callable[[RgbImage], list[Peak]],
    ) -> None:
        self.data, self.recipe = data, recipe
        self.networks: dict[str, nn.Module] = {self.name: network}
        self.optimizers = new_adamw(network, recipe.schedule.learning_rate)
        self.hits, self.misses = part_places(data.train, peaks, recipe.crop_size_px)
        self.shares = draw_shares(self.hits, recipe.balance)
        self.synthetic, _ = part_places(data.synthetic, peaks, recipe.crop_size_px)
        self.synthetic_shares = draw_shares(self.synthetic, recipe.balance)
        self.usual_area_px = float(np.median([hit.flaw.region.area_px for hit in self.hits]))
        val_hits, val_misses = part_places(data.val, peaks, recipe.crop_size_px)
        self.val_places = val_hits + val_misses[: 2 * len(val_hits)]

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Squares around predicted peaks, moved, zoomed and relit, with labels and weights."""
        drawn = [self._draw_square(rng) for _ in range(self.recipe.schedule.batch)]
        labels = np.stack([labels for _, labels in drawn])
        weights = [
            weigh_regions(one > 0, self.usual_area_px, self.recipe.region_balance) for one in labels
        ]
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in drawn])),
            "labels": torch.from_numpy(labels.astype(np.int64)),
            "weights": torch.from_numpy(np.stack(weights)),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step on cross-entropy and Dice, in which a small defect weighs more by the pixel."""
        network, optimizer = self.networks[self.name].train(), self.optimizers["adamw"]
        logits, weights = network(batch["image"]).float(), batch["weights"]
        entropy = (weights * F.cross_entropy(logits, batch["labels"], reduction="none")).mean()
        dice = dice_loss(logits, batch["labels"], weights)
        optimizer.zero_grad()
        fabric.backward(entropy + dice)
        optimizer.step()
        return {"entropy": entropy.detach(), "dice": dice.detach()}

    def judge(self, network: nn.Module) -> Judgement:
        """Pixel AP and Dice on crops around the predicted peaks of the validation pictures, and
        how many of the defects there are touched: a speck counts there as much as a large pit.
        """
        device = next(network.parameters()).device
        scores, truths, crops, touched = [], [], [], []
        for place in self.val_places:
            image, labels = place.cut(self.recipe.crop_size_px, self.recipe.side_px)
            logits = network(torch.from_numpy(image[None]).to(device)).float()
            scores.append(1 - logits.softmax(1)[0, 0].cpu().numpy())
            truths.append(labels > 0)
            crops.append(image)
            touched += [
                scores[-1][_pixels_of(region)].max() >= 0.5 for region in find_regions(labels > 0)
            ]
        figures = {
            "pixel_ap": pixel_average_precision(np.stack(scores), np.stack(truths)),
            "pixel_dice": pixel_dice(np.stack(scores) >= 0.5, np.stack(truths)),
            "touched": float(np.mean(touched)),
        }
        sheet = mask_sheet(crops[:24], scores[:24], truths[:24])
        return Judgement(sum(figures.values()), figures, sheet)

    def _draw_square(self, rng: np.random.Generator) -> tuple[RgbImage, LabelMap]:
        asked, place = self.recipe, self._draw_place(rng)
        square_px = asked.square_px or asked.side_px
        least, most = asked.zoom
        if isinstance(place, DefectPlace):
            least = max(least, min(1.0, LEAST_SIDE_PX / place.flaw.side_px))
            most = min(most, max(1.0, MOST_SHARE * asked.crop_size_px / place.flaw.side_px))
        factor = asked.side_px / asked.crop_size_px * np.exp(rng.uniform(*np.log((least, most))))
        moved = rng.normal(0.0, asked.jitter_share * square_px / factor, 2)
        centre = (place.center_xy[0] + moved[0], place.center_xy[1] + moved[1])
        record = place.record
        seen = zoom(record.image, record.labels, centre, square_px, factor)
        image, labels = flip(*seen, rng)
        return defocus(relight(image, rng), rng), labels

    def _draw_place(self, rng: np.random.Generator) -> Place:
        if self.misses and rng.random() < self.recipe.empty_share:
            return self.misses[rng.integers(len(self.misses))]
        hits = choose_pool(self.hits, self.synthetic, self.recipe.synthetic_share, rng)
        shares = self.shares if hits is self.hits else self.synthetic_shares
        return hits[rng.choice(len(hits), p=shares)]


@dataclass(frozen=True)
class Place:
    """Where a locator sends the segmenter."""

    record: Record
    center_xy: tuple[float, float]

    def window(self, crop_px: int) -> Window:
        """The square as the service would lay it."""
        return window_around(self.center_xy, crop_px, self.record.image.shape[:2])

    def cut(self, crop_px: int, side_px: int) -> tuple[RgbImage, LabelMap]:
        """The crop as the service would cut it, with its truth."""
        window = self.window(crop_px)
        labels = cut_crop(self.record.labels, window)
        size = (side_px, side_px)
        truth = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        return resize_crop(cut_crop(self.record.image, window), side_px), np.asarray(truth)


@dataclass(frozen=True)
class DefectPlace(Place):
    """A place from which a defect is seen."""

    flaw: Flaw

    @property
    def defect(self) -> tuple[str, tuple[int, int, int, int]]:
        """What no other defect has: its picture and its box."""
        return self.record.name, self.flaw.region.box

    @property
    def octave(self) -> int:
        """Of its area."""
        return int(np.log2(self.flaw.region.area_px))


def part_places(
    records: tuple[Record, ...], peaks: Callable[[RgbImage], list[Peak]], crop_px: int
) -> tuple[list[DefectPlace], list[Place]]:
    """The predicted peaks whose crops show a defect, one for each defect seen, and the empty ones.

    Every defect's own centre is among the first too, so that a miss of the locator on a training
    picture does not keep it from the segmenter.
    """
    hits: list[DefectPlace] = []
    misses: list[Place] = []
    for record in records:
        for peak in peaks(record.image):
            place = Place(record, (peak.x, peak.y))
            seen = [f for f in record.flaws if _shows(place.window(crop_px), f.region)]
            hits += [DefectPlace(record, place.center_xy, flaw) for flaw in seen]
            misses += [] if seen else [place]
        hits += [DefectPlace(record, f.region.centroid_xy, f) for f in record.flaws]
    return hits, misses


def draw_shares(hits: list[DefectPlace], balance: float) -> NDArray[np.float64]:
    """How often each place is drawn, so that common sizes and parts do not drown the rare ones.

    A defect's share is 1 / (defects of its octave of area · defects of its group) ^ balance, dealt
    among its places. With 0 all defects are drawn alike.

    Shapes: N places -> (N,), the sum 1.
    """
    places = Counter(hit.defect for hit in hits)
    defects = {hit.defect: hit for hit in hits}.values()
    octaves = Counter(defect.octave for defect in defects)
    groups = Counter(defect.record.group for defect in defects)
    commonness = np.array([octaves[h.octave] * groups[h.record.group] for h in hits], float)
    shares = commonness**-balance / np.array([places[hit.defect] for hit in hits])
    return np.asarray(shares / shares.sum(), np.float64)


def weigh_regions(is_defect: Mask, usual_area_px: float, balance: float) -> NDArray[np.float32]:
    """The weight of each pixel in the losses: (usual area / its region's) ^ balance, from 1 to 8.

    A pit of a dozen pixels would else count for nothing beside one of ten thousand.

    Shapes: is_defect (H, W) -> (H, W), 1 on the background.
    """
    _, regions, stats, _ = cv2.connectedComponentsWithStats(is_defect.view(np.uint8))
    weights = np.clip((usual_area_px / stats[:, cv2.CC_STAT_AREA]) ** balance, 1.0, 8.0)
    weights[0] = 1.0
    return np.asarray(weights[regions], np.float32)


def _shows(window: Window, region: Region) -> bool:
    """Whether any pixel of a region lies in a window."""
    x, y = region.x, region.y
    rows = slice(max(window.y - y, 0), max(window.y + window.side_px - y, 0))
    columns = slice(max(window.x - x, 0), max(window.x + window.side_px - x, 0))
    return bool(region.mask[rows, columns].any())


def _pixels_of(region: Region) -> tuple[slice, slice]:
    x, y, width, height = region.box
    return slice(y, y + height), slice(x, x + width)
