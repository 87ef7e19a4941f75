from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.specks import HW, draw_record
from training.data import Dataset, Record
from training.recipes import DownstreamRecipe, Schedule
from training.trainers.lessons import Lesson, draw_centre

SCHEDULE = Schedule(steps=6, batch=4, learning_rate=2e-3, validate_every=6)
RECIPE = DownstreamRecipe(schedule=SCHEDULE, side_px=64)
DARK = draw_record(1, kinds=(1,))


def draw_crops(
    lesson: Lesson, batches: int, recipe: DownstreamRecipe = RECIPE
) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = [lesson.draw_batch(recipe, np.random.default_rng(seed)) for seed in range(batches)]
    return [
        (image, mask)
        for batch in drawn
        for image, mask in zip(batch["image"].numpy(), batch["mask"].numpy(), strict=True)
    ]


def plain_lesson(data: Dataset, *, synthetic: tuple[Record, ...] = ()) -> Lesson:
    return Lesson(data.train_defects, data.train_normals, synthetic, is_augmented=False)


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
    crops = draw_crops(plain_lesson(data), 3, replace(RECIPE, defect_share=1.0))

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
    lesson = Lesson(records, data.train_normals, (), is_augmented=True)

    crops = [(i, m) for i, m in draw_crops(lesson, 6) if m.any()]

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

    crops = draw_crops(plain_lesson(data, synthetic=(synthetic,)), 60, recipe)

    is_synthetic = np.mean([bool(mask.all()) for _, mask in crops])
    assert is_synthetic == pytest.approx(0.45, abs=0.08)
    assert np.mean([not mask.any() for _, mask in crops]) == pytest.approx(0.4, abs=0.08)
