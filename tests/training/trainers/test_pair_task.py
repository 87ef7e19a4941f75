from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tests.training.specks import HW, draw_record
from training.data import Dataset
from training.recipes import DownstreamRecipe, Schedule
from training.trainers.lessons import Lesson
from training.trainers.pair_task import (
    PairSegmenter,
    PairTask,
    PictureJudge,
    look_at,
    predict_logits,
)

SCHEDULE = Schedule(steps=6, batch=4, learning_rate=2e-3, validate_every=6)
RECIPE = DownstreamRecipe(schedule=SCHEDULE, side_px=64)
DARK = draw_record(1, kinds=(1,))


class RedSegmenter(nn.Module):
    """Sure of a defect wherever a pixel's red is dark: 4 - red / 32."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image_bhwc: Tensor) -> Tensor:
        return 4 - image_bhwc[..., 0].float()[:, None] / 32 + self.nothing


def new_task(data: Dataset) -> PairTask:
    torch.manual_seed(0)
    lesson = Lesson(data.train_defects, data.train_normals, (), is_augmented=False)
    return PairTask(PairSegmenter(), lesson, RECIPE, PictureJudge(data.val, RECIPE.view))


def test_the_losses_fall(data):
    task, fabric = new_task(data), Fabric(accelerator="cpu", devices=1)
    task.networks["pairs"] = fabric.setup_module(task.networks["pairs"])
    batch = task.draw_batch(np.random.default_rng(0))

    told = [task.take_step(batch, fabric) for _ in range(6)]

    assert float(sum(told[-1].values())) < 0.9 * float(sum(told[0].values()))


def test_the_logits_of_a_whole_picture_lie_on_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 3)).astype(np.uint8)

    logits = predict_logits(image, RedSegmenter())

    assert np.allclose(logits, 4 - image[..., 0] / 32)


def test_who_sees_every_defect_is_judged_perfect():
    pits = [draw_record(seed, kinds=(1,)) for seed in range(3)]
    normals = [draw_record(seed, kinds=()) for seed in range(10, 12)]

    judgement = PictureJudge([*pits, *normals], 1.0)(RedSegmenter())

    assert judgement.figures == dict.fromkeys(
        ("picture_ap", "pooled_ap", "f1_max", "iou", "image_auroc"), 1.0
    )


def test_who_sees_half_of_the_defects_is_judged_so():
    pit, scratch = (draw_record(3, kinds=(kind,)) for kind in (1, 2))

    figures = PictureJudge([pit, scratch], 1.0)(RedSegmenter()).figures

    blind = figures["picture_ap"] * 2 - 1
    assert 0.0 < blind < 0.05
    assert figures["iou"] == pytest.approx(
        np.count_nonzero(pit.labels)
        / (np.count_nonzero(pit.labels) + np.count_nonzero(scratch.labels))
    )


def test_a_picture_is_looked_at_at_the_views_scale():
    image, truth = look_at(DARK, 0.5)

    assert image.shape == (HW[0] // 2, HW[1] // 2, 3)
    assert truth.shape == image.shape[:2]
    assert truth.sum() == pytest.approx(np.count_nonzero(DARK.labels) / 4, rel=0.15)
    assert image[truth].mean() < 90


def test_at_a_view_of_one_nothing_is_changed():
    image, truth = look_at(DARK, 1.0)

    assert np.array_equal(image, DARK.image)
    assert np.array_equal(truth, DARK.labels > 0)
