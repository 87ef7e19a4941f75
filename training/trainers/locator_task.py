"""The locator: what it learns from, and what it is chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from models.arrays import RgbImage
from models.graphs import HeatmapLocator, Locator
from models.locating import predict_field
from models.steps.crops import window_around
from models.steps.heatmap import Peak, cell_of, draw_peaks
from models.steps.outlines import bridge_diagonals, find_regions
from training.augment import LabelMap, defocus, flip, relight, zoom
from training.data import Dataset, Record, choose_pool, crop_radius_px
from training.losses import heatmap_focal_loss, offset_loss
from training.metrics import image_auroc, is_covered
from training.networks.locators import Lite0Locator, PlainLocator
from training.recipes import LocatorRecipe, Recipe
from training.trainers.hard_negatives import HardNegatives
from training.trainers.loop import Batch, Judgement
from training.trainers.sheets import field_sheet


class LocatorTask:
    """Heatmap and offsets of the defects' centres, on squares cut from whole pictures."""

    name = product = "locator"

    def __init__(self, network: PlainLocator | Lite0Locator, data: Dataset, recipe: Recipe) -> None:
        assert isinstance(recipe.locator, LocatorRecipe)
        self.data, self.recipe, self.crop_px = data, recipe.locator, recipe.segmenter.crop_size_px
        self.stride_px, self.multiple_px = network.stride_px, network.multiple_px
        self.hard = HardNegatives(data.train)
        self.networks: dict[str, nn.Module] = {self.name: network}
        self.optimizers = new_adamw(network, recipe.locator.schedule.learning_rate)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Squares around defects and anywhere else, with their heatmaps and offsets."""
        drawn = [self._draw_square(rng) for _ in range(self.recipe.schedule.batch)]
        targets = [
            draw_centres(labels, self.stride_px, sigma_share=self.recipe.sigma_share)
            for _, labels in drawn
        ]
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in drawn])),
            "heat": torch.from_numpy(np.stack([t.heat for t in targets])),
            "offsets": torch.from_numpy(np.stack([t.offsets for t in targets])),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step on the focal heatmap loss and the offsets of the centres."""
        network, optimizer = self.networks[self.name].train(), self.optimizers["adamw"]
        field = network(batch["image"]).float()
        heat = heatmap_focal_loss(field[:, :1], batch["heat"])
        offset = offset_loss(field[:, 1:], batch["offsets"], batch["heat"] == 1)
        optimizer.zero_grad()
        fabric.backward(heat + self.recipe.offset_weight * offset)
        optimizer.step()
        return {"heat": heat.detach(), "offset": offset.detach()}

    def judge(self, network: nn.Module) -> Judgement:
        """Coverage of the validation defects by five crops, and how normal pictures rank."""
        locator = torch_heatmap(network, self.stride_px, self.multiple_px)
        return judge_locator(locator, self.data, self.crop_px)

    def mine(self, network: nn.Module, rng: np.random.Generator) -> None:
        """Find where the network is surest of a defect that is none, to show it more of that."""
        locator = torch_heatmap(network, self.stride_px, self.multiple_px)
        radius_px = crop_radius_px(self.crop_px, self.data)

        def peaks(image: RgbImage) -> list[Peak]:
            field = predict_field(image, locator)
            return field.peaks(5, min_confidence=0.0, radius_px=radius_px)

        self.hard.mine(peaks, self.recipe.hard_pictures, rng)

    def _draw_square(self, rng: np.random.Generator) -> tuple[RgbImage, LabelMap]:
        side_px, factor = self.recipe.side_px, np.exp(rng.uniform(*np.log(self.recipe.zoom)))
        record, centre = self._draw_place(rng, reach_px=0.45 * side_px / factor)
        image, labels = flip(*zoom(record.image, record.labels, centre, side_px, factor), rng)
        return defocus(relight(image, rng), rng), labels

    def _draw_place(
        self, rng: np.random.Generator, *, reach_px: float
    ) -> tuple[Record, tuple[float, float]]:
        """A picture and a point within reach of a defect, of a hard negative, or anywhere."""
        asked, data, drawn = self.recipe, self.data, rng.random()
        if drawn < asked.defect_share:
            pool = choose_pool(data.train_defects, data.synthetic, asked.synthetic_share, rng)
            record = pool[int(rng.integers(len(pool)))]
            x, y = record.flaws[rng.integers(len(record.flaws))].region.centroid_xy
        elif self.hard.places and drawn < asked.defect_share + asked.hard_share:
            record, (x, y) = self.hard.draw(rng)
        else:
            record = data.train[rng.integers(len(data.train))]
            height, width = record.image.shape[:2]
            return record, (rng.uniform(0, width), rng.uniform(0, height))
        return record, (x + rng.uniform(-reach_px, reach_px), y + rng.uniform(-reach_px, reach_px))


def judge_locator(locator: Locator, data: Dataset, crop_px: int) -> Judgement:
    """Coverage of the validation defects by one and by five crops, and how normal pictures rank."""
    fields = [predict_field(record.image, locator) for record in data.val]
    radius_px = crop_radius_px(crop_px, data)
    windows = [
        [
            window_around((p.x, p.y), crop_px, field.image_hw)
            for p in field.peaks(5, min_confidence=0.0, radius_px=radius_px)
        ]
        for field in fields
    ]
    shown = [
        [is_covered(flaw.region, crops[:n]) for n in (1, 5)]
        for record, crops in zip(data.val, windows, strict=True)
        for flaw in record.flaws
    ]
    at_1, at_5 = np.mean(shown, axis=0)
    auroc = image_auroc([f.strongest for f in fields], [bool(r.flaws) for r in data.val])
    figures = {"coverage_at_1": at_1, "coverage_at_5": at_5, "image_auroc": auroc}
    return Judgement(at_1 + at_5 + auroc, figures, field_sheet(data.val, fields))


def torch_heatmap(network: nn.Module, stride_px: int, multiple_px: int) -> HeatmapLocator:
    """A torch network behind the seam's interface, so that training meets the service's peaks."""
    device = next(network.parameters()).device

    def graph(*, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        with torch.no_grad():
            return (network(torch.from_numpy(image).to(device)).float().cpu().numpy(),)

    return HeatmapLocator(graph, stride_px, multiple_px)


@dataclass(frozen=True)
class Centres:
    """heat (1, h, w) and offsets (2, h, w) float32 of the defects in one square."""

    heat: NDArray[np.float32]
    offsets: NDArray[np.float32]


def draw_centres(labels: LabelMap, stride_px: int, *, sigma_share: float) -> Centres:
    """Heat 1 on the cell of each defect's centroid, falling with the defect's own size."""
    hw = (labels.shape[0] // stride_px, labels.shape[1] // stride_px)
    regions = find_regions(bridge_diagonals(labels > 0))
    points = np.array([r.centroid_xy for r in regions]).reshape(-1, 2)
    sigmas_px = [max(0.75 * stride_px, sigma_share * max(r.box[2:])) for r in regions]
    offsets = np.zeros((2, *hw), np.float32)
    for x, y in points:
        column, row = cell_of((x, y), hw, stride_px)
        offsets[:, row, column] = x / stride_px - column - 0.5, y / stride_px - row - 0.5
    return Centres(draw_peaks(points, sigmas_px, hw, stride_px)[None], offsets)


def new_adamw(network: nn.Module, learning_rate: float) -> dict[str, Optimizer]:
    """AdamW with the rate that a schedule begins from."""
    optimizer = AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate
    return {"adamw": optimizer}
