from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.specks import HW, draw_record
from training.data import Dataset
from training.experiments import trial
from training.networks.segmenters import Segmenter
from training.recipes import Schedule, WholeRecipe
from training.trainers.loop import run_loop
from training.trainers.whole_task import WholeTask, shrink, shrunk_hw, whole_schedule

SMALL = WholeRecipe(width_px=64, batch=2, learning_rate=2e-3)


def new_task(data: Dataset, recipe: WholeRecipe = SMALL) -> WholeTask:
    torch.manual_seed(0)
    return WholeTask(Segmenter(2, side_px=64, decoder="DeepLabV3Plus"), data, recipe)


@pytest.mark.parametrize(
    ("hw", "small"),
    [
        ((1016, 2928), (352, 1024)),
        ((460, 1130), (416, 1024)),
        ((300, 500), (288, 512)),
        ((8, 40), (32, 32)),
    ],
)
def test_a_picture_keeps_its_proportions_as_far_as_multiples_of_32_go(hw, small):
    assert shrunk_hw(hw, 1024) == small


def test_a_small_picture_has_its_defects_where_they_were():
    record = draw_record(3, kinds=(2,))

    image, labels = shrink(record, 64)

    assert image.shape == (*labels.shape, 3) == (64, 64, 3)
    (y, x), (was_y, was_x) = (
        np.argwhere(one).mean(axis=0) / one.shape for one in (labels, record.labels)
    )
    assert abs(y - was_y) < 0.03
    assert abs(x - was_x) < 0.03


def test_a_batch_holds_pictures_of_different_sizes_mirrored_to_the_largest(data):
    wide = draw_record(0, kinds=(1,))
    tall = replace(wide, image=np.tile(wide.image, (2, 1, 1)), labels=np.tile(wide.labels, (2, 1)))
    mixed = Dataset(data.labels, (wide, tall, *data.train_normals), data.val)
    task = new_task(mixed, replace(SMALL, batch=8))

    batch = task.draw_batch(np.random.default_rng(0))

    assert batch["image"].shape == (8, 96, 64, 3)
    assert batch["labels"].shape == (8, 96, 64)
    assert batch["labels"].max() == 1


def test_the_same_chance_draws_the_same_batch(data):
    task = new_task(data)

    first, second = (task.draw_batch(np.random.default_rng(5)) for _ in range(2))

    assert torch.equal(first["image"], second["image"])


def test_as_many_pixels_are_shown_as_to_the_segmenter_of_crops(data):
    recipe = trial()
    crops = recipe.segmenter

    schedule = whole_schedule(recipe, data)

    shown_px = schedule.steps * schedule.batch * np.prod(shrunk_hw(HW, recipe.whole.width_px))
    budget_px = crops.schedule.steps * crops.schedule.batch * crops.side_px**2
    assert shown_px == pytest.approx(budget_px, rel=0.1)


def test_a_whole_segmenter_learns_and_is_judged_by_pixels(data, tmp_path, fabric):
    schedule = Schedule(steps=4, batch=2, learning_rate=2e-3, validate_every=4, ema_decay=0.5)
    before = new_task(data)

    figures = run_loop(before, schedule, tmp_path, seed=0, fabric=fabric)

    assert set(figures) == {"pixel_ap", "pixel_dice"}
    assert 0.0 < figures["pixel_ap"] <= 1.0
    assert (tmp_path / "whole.pt").exists()
