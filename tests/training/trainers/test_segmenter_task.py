from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.steps.heatmap import Peak
from tests.training.specks import draw_record
from training.data import Record
from training.experiments import trial
from training.networks.segmenters import Segmenter
from training.recipes import Schedule
from training.trainers.segmenter_task import (
    DefectPlace,
    Place,
    SegmenterTask,
    draw_shares,
    part_places,
    weigh_regions,
)

SCHEDULE = Schedule(steps=9, batch=4, learning_rate=2e-3, validate_every=9)


def new_task(data, **changes) -> SegmenterTask:
    torch.manual_seed(0)
    network = Segmenter(2, side_px=64, decoder="DeepLabV3Plus")
    recipe = replace(trial().segmenter, schedule=SCHEDULE, **changes)
    return SegmenterTask(network, data, recipe, lambda _: [Peak(5.0, 5.0, 0.5)])


def draw_spot(side_px: int, group: str, name: str) -> Record:
    labels = np.zeros((64, 64), np.uint8)
    labels[20 : 20 + side_px, 30 : 30 + side_px] = 1
    return Record(name, group, np.full((64, 64, 3), 150, np.uint8), labels)


class Knowing(nn.Module):
    """Segments what is brighter or darker than the data set's grey: all there is to see."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image_bhwc: Tensor) -> Tensor:
        grey = image_bhwc.float().mean(3)
        dark, bright = (grey < 110).float() * 20 - 10, (grey > 200).float() * 20 - 10
        return torch.stack([torch.zeros_like(grey), dark, bright], dim=1)


def test_a_segmenter_that_knows_is_judged_as_right(data):
    judgement = new_task(data).judge(Knowing())

    assert judgement.figures["pixel_ap"] > 0.95
    assert judgement.figures["pixel_dice"] > 0.95


def test_every_defect_is_a_place_even_where_the_locator_misses_it(data):
    hits, misses = part_places(data.val, lambda _: [Peak(2.0, 2.0, 0.9)], 16)

    flaws = sum(len(record.flaws) for record in data.val)
    assert len(hits) == flaws
    assert len(misses) == len(data.val)
    assert all(place.cut(16, 16)[1].any() for place in hits)


def test_a_place_is_cut_as_the_service_cuts_it():
    record = draw_record(3, kinds=(1,))
    x, y = record.flaws[0].region.centroid_xy

    image, labels = Place(record, (x, y)).cut(32, 64)

    assert image.shape == (64, 64, 3)
    assert labels.shape == (64, 64)
    assert image[labels == 1].mean() < 70 < 120 < image[labels == 0].mean()


def test_crops_keep_picture_and_truth_together(data):
    task = new_task(data)

    batches = [task.draw_batch(np.random.default_rng(seed)) for seed in range(6)]

    grey = torch.cat([batch["image"] for batch in batches]).float().mean(3)
    labels = torch.cat([batch["labels"] for batch in batches])
    assert labels.dtype == torch.int64
    assert (labels > 0).any()
    assert (grey[labels == 1].mean() + 40 < grey[labels == 0].mean()).item()


def test_a_few_steps_on_one_batch_lower_its_losses(data, fabric):
    task = new_task(data)
    task.networks["segmenter"] = fabric.setup_module(task.networks["segmenter"])
    batch = task.draw_batch(np.random.default_rng(0))

    told = [task.take_step(batch, fabric) for _ in range(12)]

    assert set(told[0]) == {"entropy", "dice"}
    assert sum(told[-1].values()) < 0.7 * sum(told[0].values())


def test_a_peak_that_shows_two_defects_is_a_place_for_each():
    record = draw_spot(8, "one", "a.png")
    record.labels[40:44, 30:34] = 1

    hits, misses = part_places((record,), lambda _: [Peak(32.0, 32.0, 0.9)], 64)

    assert len(hits) == 4
    assert {hit.defect for hit in hits} == {("a.png", (30, 20, 8, 8)), ("a.png", (30, 40, 4, 4))}
    assert misses == []


def test_a_rare_size_and_a_rare_part_are_drawn_more_often_than_they_are_many():
    common = [draw_spot(10, "same", f"{i}.png") for i in range(8)]
    rare = draw_spot(3, "other", "rare.png")
    hits, _ = part_places((*common, rare), lambda _: [], 32)

    alike, balanced = draw_shares(hits, 0.0), draw_shares(hits, 0.5)

    assert alike.tolist() == pytest.approx([1 / 9] * 9)
    assert balanced[-1] == pytest.approx(0.5)
    assert balanced.sum() == pytest.approx(1.0)


def test_a_defect_seen_from_many_places_is_drawn_no_more_often():
    one, other = draw_spot(10, "one", "a.png"), draw_spot(10, "other", "b.png")
    peaks = [Peak(30.0 + i, 25.0, 0.9) for i in range(5)]
    hits, _ = part_places((one, other), lambda _: [], 32)
    seen = [DefectPlace(one, (p.x, p.y), one.flaws[0]) for p in peaks]

    shares = draw_shares([*hits, *seen], 0.5)

    of_one = sum(s for s, hit in zip(shares, [*hits, *seen], strict=True) if hit.record is one)
    assert of_one == pytest.approx(0.5)


def test_pixels_of_a_small_defect_weigh_more_up_to_a_limit():
    is_defect = np.zeros((40, 40), bool)
    is_defect[2:4, 2:4] = is_defect[10:18, 10:18] = is_defect[20:36, 20:36] = True

    weights = weigh_regions(is_defect, 64.0, 0.5)

    assert weights[is_defect == 0].tolist() == [1.0] * int((~is_defect).sum())
    assert weights[2, 2] == pytest.approx(4.0)
    assert weights[12, 12] == weights[30, 30] == 1.0
    assert weigh_regions(is_defect, 64e6, 0.5).max() == 8.0


def test_squares_have_the_side_that_the_recipe_asks(data):
    crops, squares = new_task(data), new_task(data, square_px=48)

    whole, small = (task.draw_batch(np.random.default_rng(0)) for task in (crops, squares))

    assert whole["image"].shape == (4, 64, 64, 3)
    assert small["image"].shape == (4, 48, 48, 3)
    assert small["labels"].shape == small["weights"].shape == (4, 48, 48)


def test_a_segmenter_learns_from_synthetic_pictures_as_often_as_asked(data):
    red = np.full((*data.train[0].image.shape[:2], 3), (255, 0, 0), np.uint8)
    made = tuple(replace(record, image=red) for record in data.train_defects)
    task = new_task(replace(data, synthetic=made), empty_share=0.0, synthetic_share=0.25)

    drawn = [task.draw_batch(np.random.default_rng(i))["image"] for i in range(40)]

    colours = torch.cat(drawn).float().mean((1, 2))
    assert abs((colours[:, 0] > colours[:, 2] + 60).float().mean() - 0.25) < 0.12
