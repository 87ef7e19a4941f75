from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tests.training.specks import HW, draw_record
from training.data import Dataset, Record
from training.recipes import DownstreamRecipe, Schedule
from training.trainers.pair_task import (
    Lesson,
    PairSegmenter,
    PairTask,
    PictureJudge,
    draw_centre,
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


def new_task(
    data: Dataset,
    recipe: DownstreamRecipe = RECIPE,
    *,
    synthetic: tuple[Record, ...] = (),
    is_augmented: bool = False,
) -> PairTask:
    torch.manual_seed(0)
    lesson = Lesson(data.train_defects, data.train_normals, synthetic, is_augmented)
    return PairTask(PairSegmenter(), lesson, recipe, PictureJudge(data.val, recipe.view))


def draw_crops(task: PairTask, batches: int) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = [task.draw_batch(np.random.default_rng(seed)) for seed in range(batches)]
    return [
        (image, mask)
        for batch in drawn
        for image, mask in zip(batch["image"].numpy(), batch["mask"].numpy(), strict=True)
    ]


def test_every_pixel_of_a_defect_comes_into_view_and_the_square_stays_inside():
    record = draw_record(5, kinds=(2,))
    seen = np.zeros(HW, bool)

    for seed in range(300):
        x, y = draw_centre(record, 40, np.random.default_rng(seed))
        assert 20 <= x <= HW[1] - 20
        assert 20 <= y <= HW[0] - 20
        square = (slice(int(y) - 20, int(y) + 20), slice(int(x) - 20, int(x) + 20))
        assert record.labels[square].any()
        seen[square] = True

    assert seen[record.labels > 0].all()


def test_a_square_larger_than_the_picture_lies_in_its_middle():
    assert draw_centre(DARK, 500, np.random.default_rng(0)) == (HW[1] / 2, HW[0] / 2)


def test_without_augmentation_a_crop_is_cut_pixel_by_pixel(data):
    recipe = replace(RECIPE, defect_share=1.0)

    crops = draw_crops(new_task(data, recipe), 3)

    records = data.train_defects
    for image, mask in crops:
        views = [np.lib.stride_tricks.sliding_window_view(r.labels > 0, (64, 64)) for r in records]
        places = [
            (r, *at)
            for r, view in zip(records, views, strict=True)
            for at in np.argwhere((view == mask).all(axis=(2, 3)))
        ]
        assert any(np.array_equal(r.image[y : y + 64, x : x + 64], image) for r, y, x in places)


def test_augmentation_changes_light_and_keeps_the_truth_on_the_defect(data):
    records = tuple(draw_record(seed, kinds=(1,)) for seed in range(4))
    task = new_task(Dataset(data.labels, (*records, *data.train_normals), data.val))
    task.lesson = replace(task.lesson, is_augmented=True)

    crops = [(i, m) for i, m in draw_crops(task, 6) if m.any()]

    assert crops
    grounds = [np.median(image) for image, _ in crops]
    assert np.ptp(grounds) > 10
    for image, mask in crops:
        assert image[mask > 0].mean() < image[mask == 0].mean() - 40


def test_shares_of_normal_and_synthetic_crops_are_as_the_recipe_says(data):
    red = np.zeros((*HW, 3), np.uint8)
    red[..., 0] = 255
    synthetic = Record("s", "s", red, np.ones(HW, np.uint8))
    recipe = replace(RECIPE, defect_share=0.6, synthetic_share=0.75)

    crops = draw_crops(new_task(data, recipe, synthetic=(synthetic,)), 60)

    is_synthetic = np.mean([bool(mask.all()) for _, mask in crops])
    assert is_synthetic == pytest.approx(0.45, abs=0.08)
    assert np.mean([not mask.any() for _, mask in crops]) == pytest.approx(0.4, abs=0.08)


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
