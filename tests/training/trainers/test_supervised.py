from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.detection import predict_field
from models.steps.heatmap import Peak
from tests.training.specks import HW, draw_record
from training.data import Record
from training.networks.locators import PlainLocator, build_locator
from training.networks.segmenters import Segmenter
from training.recipes import Recipe, Schedule, trial
from training.trainers.supervised import (
    LocatorTask,
    Place,
    SegmenterTask,
    draw_centres,
    part_places,
    torch_locator,
)

SCHEDULE = Schedule(steps=9, batch=4, learning_rate=2e-3, validate_every=9)


def new_recipe() -> Recipe:
    recipe = trial()
    return replace(
        recipe,
        locator=replace(recipe.locator, schedule=SCHEDULE, side_px=64),
        segmenter=replace(recipe.segmenter, schedule=SCHEDULE),
    )


def new_locator_task(data) -> LocatorTask:
    torch.manual_seed(0)
    return LocatorTask(build_locator("plain"), data, new_recipe())


def new_segmenter_task(data) -> SegmenterTask:
    torch.manual_seed(0)
    network = Segmenter(2, side_px=64, decoder="DeepLabV3Plus")
    return SegmenterTask(network, data, new_recipe().segmenter, lambda _: [Peak(5.0, 5.0, 0.5)])


class RedLocator(nn.Module):
    """Sure of a defect wherever a cell is bright red."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image_bhwc: Tensor) -> Tensor:
        red = image_bhwc[..., 0].float()[:, None]
        heat = nn.functional.max_pool2d(red, 8) / 16 - 8
        return torch.cat([heat, torch.zeros_like(heat).repeat(1, 2, 1, 1)], dim=1)


class Knowing(nn.Module):
    """Segments what is brighter or darker than the data set's grey: all there is to see."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image_bhwc: Tensor) -> Tensor:
        grey = image_bhwc.float().mean(3)
        dark, bright = (grey < 110).float() * 20 - 10, (grey > 200).float() * 20 - 10
        return torch.stack([torch.zeros_like(grey), dark, bright], dim=1)


def with_red_defects(record: Record) -> Record:
    image = np.zeros_like(record.image)
    image[record.labels > 0, 0] = 255
    return replace(record, image=image)


@pytest.mark.parametrize(
    ("new_task", "names"),
    [(new_locator_task, {"heat", "offset"}), (new_segmenter_task, {"entropy", "dice"})],
)
def test_a_few_steps_on_one_batch_lower_its_losses(data, fabric, new_task, names):
    task = new_task(data)
    (name,) = task.networks
    task.networks[name] = fabric.setup_module(task.networks[name])
    batch = task.draw_batch(np.random.default_rng(0))

    told = [task.take_step(batch, fabric) for _ in range(12)]

    assert set(told[0]) == names
    assert sum(told[-1].values()) < 0.7 * sum(told[0].values())


def test_squares_show_defects_as_often_as_asked(data):
    task = new_locator_task(data)

    heats = torch.cat([task.draw_batch(np.random.default_rng(i))["heat"] for i in range(20)])

    assert heats.shape == (80, 1, 8, 8)
    assert 0.6 < (heats.amax((1, 2, 3)) == 1).float().mean() < 1.0


def test_the_same_rng_draws_the_same_square(data):
    task = new_locator_task(data)

    first, second = (task.draw_batch(np.random.default_rng([1, 2])) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_locator_that_knows_is_judged_as_covering_all(data):
    red = replace(data, val=tuple(with_red_defects(record) for record in data.val))
    task = new_locator_task(red)

    judgement = task.judge(RedLocator())

    assert judgement.figures == {"coverage_at_1": 1.0, "coverage_at_5": 1.0, "image_auroc": 1.0}
    assert judgement.score == 3.0


def test_a_segmenter_that_knows_is_judged_as_right(data):
    judgement = new_segmenter_task(data).judge(Knowing())

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
    batch = new_segmenter_task(data).draw_batch(np.random.default_rng(1))

    grey, labels = batch["image"].float().mean(3), batch["labels"]
    assert labels.dtype == torch.int64
    assert (labels > 0).any()
    assert (grey[labels == 1].mean() + 40 < grey[labels == 0].mean()).item()


def test_peaks_lie_on_the_centres_that_were_drawn():
    labels = np.zeros(HW, np.uint8)
    labels[20:31, 41:52], labels[70:73, 100:103] = 1, 2

    centres = draw_centres(labels, 8, sigma_share=0.12)

    rows, columns = np.nonzero(centres.heat[0] == 1)
    offsets = centres.offsets[:, rows, columns]
    found = np.stack([(columns + 0.5 + offsets[0]) * 8, (rows + 0.5 + offsets[1]) * 8], axis=1)
    assert sorted(found.tolist()) == [[46.5, 25.5], [101.5, 71.5]]


def test_a_torch_locator_answers_as_the_seam_asks():
    torch.manual_seed(0)
    network = PlainLocator().eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)

    field = predict_field(image, torch_locator(network, 8, 16))

    assert field.logits.shape == (7, 9)
    assert field.image_hw == (50, 70)
