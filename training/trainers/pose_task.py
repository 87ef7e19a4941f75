"""The regressing locator: what it learns from, and what it is chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from models.arrays import Points, RgbImage
from models.graphs import PoseLocator
from models.locating import shrink_to
from training.augment import relight
from training.data import Dataset, Record, choose_pool
from training.losses import heatmap_focal_loss
from training.networks.deeppose import LOGIT, SIGMA, DeepPose, Lesson, X, Y
from training.recipes import PoseRecipe, Recipe
from training.trainers.locator_task import judge_locator, new_adamw
from training.trainers.loop import Batch, Judgement

MOST = 16
"""Defects of one picture that are learned from; more are left out."""
HINTS = 2
"""Slots of each picture that are refined in training besides as many of the strongest."""
NEAR_SHARE = 0.35
"""A refined point may be a defect whose centre lies so far from the sub-image's, of its side."""


@dataclass(frozen=True)
class View:
    """A picture as it is learned from, and the centres of its defects."""

    image: RgbImage
    points: Points


class PoseTask:
    """Points of whole pictures: a first glance, and its refinement on sub-images."""

    name = product = "locator"

    def __init__(self, network: DeepPose, data: Dataset, recipe: Recipe) -> None:
        assert isinstance(recipe.locator, PoseRecipe)
        self.data, self.recipe, self.crop_px = data, recipe.locator, recipe.segmenter.crop_size_px
        self.slots_hw, self.anchors = network.glance.slots_hw, network.glance.anchors()
        self.networks: dict[str, nn.Module] = {self.name: network}
        self.optimizers = new_adamw(network, recipe.locator.schedule.learning_rate)

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """Whole pictures, moved, zoomed, mirrored and relit, with looks, sizes and truths."""
        views = [self._draw_view(rng) for _ in range(self.recipe.schedule.batch)]
        height, width = np.max([view.image.shape[:2] for view in views], axis=0)
        images = np.zeros((len(views), height, width, 3), np.uint8)
        for canvas, view in zip(images, views, strict=True):
            canvas[: view.image.shape[0], : view.image.shape[1]] = view.image
        looks = [shrink_to(view.image, self.recipe.look_hw) for view in views]
        sizes = np.array([view.image.shape[1::-1] for view in views], np.float32)
        truths = np.stack([pad_points(view.points) for view in views])
        return {
            "image": torch.from_numpy(images),
            "look": torch.from_numpy(np.stack(looks)),
            "size": torch.from_numpy(sizes),
            "truth": torch.from_numpy(truths),
            "hints": torch.from_numpy(self._hint(truths, sizes, rng)),
        }

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        """One step on both stages: which points are defects, where they are, how far off."""
        network, optimizer = self.networks[self.name].train(), self.optimizers["adamw"]
        lesson = network(batch["image"], batch["look"], batch["size"], batch["hints"])
        region_b2 = batch["size"] / torch.tensor(self.slots_hw[::-1], device=fabric.device)
        losses = self._judge_glance(lesson.rough_bk4, batch["truth"], region_b2)
        losses |= self._judge_refined(lesson, batch["truth"])
        optimizer.zero_grad()
        fabric.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def judge(self, network: nn.Module) -> Judgement:
        """As the heatmap is judged: coverage by five crops, and how normal pictures rank."""
        return judge_locator(torch_pose(network), self.data, self.crop_px)

    def _judge_glance(
        self, rough_bk4: Tensor, truth_bm3: Tensor, region_b2: Tensor
    ) -> dict[str, Tensor]:
        """Each defect is one slot's, by the Hungarian method; its neighbours are excused."""
        anchors = self.anchors.to(rough_bk4)
        target_bk = torch.zeros_like(rough_bk4[..., LOGIT])
        places, goals = [], []
        for b, (told_k4, truth_m3) in enumerate(zip(rough_bk4, truth_bm3, strict=True)):
            truth_n2 = truth_m3[truth_m3[:, 2] > 0, :2] / region_b2[b]
            points_k2 = told_k4[:, X : Y + 1] / region_b2[b]
            from_anchor = torch.cdist(anchors, truth_n2)
            cost = from_anchor + torch.cdist(points_k2, truth_n2) - told_k4[:, :1].sigmoid()
            slots, truths = linear_sum_assignment(cost.detach().cpu().numpy())
            if len(slots):
                target_bk[b] = torch.exp(-(from_anchor.amin(1) ** 2) / (2 * 0.6**2)).clamp(max=0.99)
            target_bk[b, slots] = 1.0
            sigma_k1 = told_k4[:, SIGMA:] / region_b2[b].mean()
            places.append(torch.cat([points_k2, sigma_k1], 1)[slots])
            goals.append(truth_n2[truths])
        logits_bk = rough_bk4[..., LOGIT]
        focal = heatmap_focal_loss(logits_bk[:, None, None], target_bk[:, None, None])
        place, sigma = point_losses(torch.cat(places), torch.cat(goals))
        return {"slot": focal, "place": place, "sigma": 0.2 * sigma}

    def _judge_refined(self, lesson: Lesson, truth_bm3: Tensor) -> dict[str, Tensor]:
        """A sub-image holds the defect nearest to its centre, or none."""
        half_px = 0.5 * self.recipe.side_px
        gap_bnm = torch.cdist(lesson.tried_bn4[..., X : Y + 1], truth_bm3[..., :2])
        gap_bnm = gap_bnm.masked_fill(truth_bm3[:, None, :, 2] == 0, torch.inf)
        nearest_bn, which_bn = gap_bnm.min(2)
        holds_bn = nearest_bn < NEAR_SHARE * self.recipe.side_px
        unclear_bn = ~holds_bn & (nearest_bn < 2 * NEAR_SHARE * self.recipe.side_px)
        entropy_bn = F.binary_cross_entropy_with_logits(
            lesson.fine_bn4[..., LOGIT], holds_bn.float(), reduction="none"
        )
        entropy = (entropy_bn * ~unclear_bn).sum() / (~unclear_bn).sum().clamp(min=1)
        goals_bn2 = truth_bm3[..., :2].gather(1, which_bn[..., None].expand(-1, -1, 2))
        told_n3 = lesson.fine_bn4[..., X:][holds_bn] / half_px
        place, sigma = point_losses(told_n3, goals_bn2[holds_bn] / half_px)
        return {"refined": entropy, "refined_place": place, "refined_sigma": 0.2 * sigma}

    def _hint(
        self, truths: NDArray[np.float32], sizes: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Slots (B, HINTS) of defects, and any others where there are fewer."""
        rows, columns = self.slots_hw
        hints = rng.integers(0, rows * columns, (len(truths), HINTS))
        for slots, truth, size in zip(hints, truths, sizes, strict=True):
            real = truth[truth[:, 2] > 0, :2]
            chosen = rng.permutation(len(real))[:HINTS]
            x, y = (real[chosen] / size * (columns, rows)).astype(int).T
            slots[: len(chosen)] = y.clip(0, rows - 1) * columns + x.clip(0, columns - 1)
        return hints

    def _draw_view(self, rng: np.random.Generator) -> View:
        data, pool = self.data, self.data.train
        if rng.random() < self.recipe.defect_share:
            share = self.recipe.synthetic_share
            pool = tuple(choose_pool(data.train_defects, data.synthetic, share, rng))
        record = pool[int(rng.integers(len(pool)))]
        height, width = record.image.shape[:2]
        factor = float(np.exp(rng.uniform(*np.log(self.recipe.zoom))))
        shift = rng.uniform(-self.recipe.shift_share, self.recipe.shift_share, 2) * (width, height)
        mirrored = rng.random(2) < 0.5
        view = look_through(record, factor * np.where(mirrored, -1, 1), shift)
        return View(relight(view.image, rng), view.points)


def torch_pose(network: nn.Module) -> PoseLocator:
    """A torch network behind the seam's interface."""
    assert isinstance(network, DeepPose)
    device = next(network.parameters()).device

    def graph(
        *, image: NDArray[np.uint8], look: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], ...]:
        with torch.no_grad():
            given = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (image, look))
            return (network(*given).float().cpu().numpy(),)

    return PoseLocator(graph, network.look_hw)


def look_through(
    record: Record, factors_xy: NDArray[np.float64], shift_xy: NDArray[np.float64]
) -> View:
    """A picture seen larger or smaller, mirrored where a factor is negative, its middle shifted.

    What lies beyond its edge is the edge's pixel: a mirrored defect would be one without a truth.
    """
    height, width = record.image.shape[:2]
    middle = 0.5 * np.array([width, height])
    matrix = np.column_stack([np.diag(factors_xy), middle + shift_xy - factors_xy * middle])
    centres = matrix.copy()
    centres[:, 2] += 0.5 * (factors_xy - 1)  # OpenCV counts from pixel centres
    image = cv2.warpAffine(record.image, centres, (width, height), borderMode=cv2.BORDER_REPLICATE)
    told = np.array([flaw.region.centroid_xy for flaw in record.flaws]).reshape(-1, 2)
    points = told * factors_xy + matrix[:, 2]
    is_inside = ((points >= 0) & (points < (width, height))).all(1)
    return View(np.asarray(image, np.uint8), points[is_inside])


def pad_points(points: Points) -> NDArray[np.float32]:
    """x, y and 1 for each of at most MOST points, zeros for the rest: (MOST, 3)."""
    padded = np.zeros((MOST, 3), np.float32)
    count = min(len(points), MOST)
    padded[:count, :2], padded[:count, 2] = points[:count], 1.0
    return padded


def point_losses(told_n3: Tensor, goal_n2: Tensor) -> tuple[Tensor, Tensor]:
    """How far points (x, y, sigma) are off, and how wrong they are about it; 0 where none is told.

        place = mean |p - g|,  sigma = mean( |p - g|² / 2σ² + 2 log σ ), which moves σ alone

    Source: "What Uncertainties Do We Need …", Kendall & Gal 2017, eq. 5 (arXiv:1703.04977).
    """
    if not len(goal_n2):
        return told_n3.sum() * 0.0, told_n3.sum() * 0.0
    gap_n2, sigma_n = told_n3[:, :2] - goal_n2, told_n3[:, 2]
    squared_n = (gap_n2**2).sum(1).detach()
    return gap_n2.abs().mean(), (squared_n / (2 * sigma_n**2) + 2 * sigma_n.log()).mean()
