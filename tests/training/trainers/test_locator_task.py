from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.locating import predict_field
from models.steps.fields import DenseField
from tests.training.specks import HW
from training.data import Record
from training.experiments import trial
from training.networks.locators import PlainLocator, build_locator
from training.recipes import Recipe, Schedule
from training.trainers.locator_task import (
    LocatorTask,
    draw_centres,
    torch_heatmap,
)

SCHEDULE = Schedule(steps=9, batch=4, learning_rate=2e-3, validate_every=9)


def new_recipe() -> Recipe:
    recipe = trial()
    return replace(
        recipe,
        locator=replace(recipe.locator, schedule=SCHEDULE, side_px=64),
    )


def new_locator_task(data) -> LocatorTask:
    torch.manual_seed(0)
    return LocatorTask(build_locator("plain"), data, new_recipe())


class RedLocator(nn.Module):
    """Sure of a defect wherever a cell is bright red."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image_bhwc: Tensor) -> Tensor:
        red = image_bhwc[..., 0].float()[:, None]
        heat = nn.functional.max_pool2d(red, 8) / 16 - 8
        return torch.cat([heat, torch.zeros_like(heat).repeat(1, 2, 1, 1)], dim=1)


def with_red_defects(record: Record) -> Record:
    image = np.zeros_like(record.image)
    image[record.labels > 0, 0] = 255
    return replace(record, image=image)


def test_a_few_steps_on_one_batch_lower_its_losses(data, fabric):
    task = new_locator_task(data)
    task.networks["locator"] = fabric.setup_module(task.networks["locator"])
    batch = task.draw_batch(np.random.default_rng(0))

    told = [task.take_step(batch, fabric) for _ in range(12)]

    assert set(told[0]) == {"heat", "offset"}
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


def test_peaks_lie_on_the_centres_that_were_drawn():
    labels = np.zeros(HW, np.uint8)
    labels[20:31, 41:52], labels[70:73, 100:103] = 1, 2

    centres = draw_centres(labels, 8, sigma_share=0.12)

    rows, columns = np.nonzero(centres.heat[0] == 1)
    offsets = centres.offsets[:, rows, columns]
    found = np.stack([(columns + 0.5 + offsets[0]) * 8, (rows + 0.5 + offsets[1]) * 8], axis=1)
    assert sorted(found.tolist()) == [[46.5, 25.5], [101.5, 71.5]]


def test_a_torch_heatmap_answers_as_the_seam_asks():
    torch.manual_seed(0)
    network = PlainLocator().eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)

    field = predict_field(image, torch_heatmap(network, 8, 16))

    assert isinstance(field, DenseField)
    assert field.logits.shape == (7, 9)
    assert field.image_hw == (50, 70)


def test_a_locator_is_shown_what_it_took_for_a_defect(data):
    task = new_locator_task(data)
    task.recipe = replace(task.recipe, defect_share=0.0, hard_share=1.0, zoom=(1.0, 1.0))
    normal = replace(data.train_normals[0], image=np.zeros((*HW, 3), np.uint8))
    normal.image[30:34, 100:104, 0] = 255
    task.hard.records = [normal]

    task.mine(RedLocator(), np.random.default_rng(0))
    del task.hard.places[1:]
    batch = task.draw_batch(np.random.default_rng(1))

    _, x, y = task.hard.places[0]
    assert abs(x - 102) <= 8
    assert abs(y - 32) <= 8
    assert (batch["image"].amax((1, 2))[:, 0] > 100).all()
    assert (batch["heat"] < 1).all()


def test_a_locator_learns_from_synthetic_pictures_as_often_as_asked(data):
    red = np.full((*HW, 3), (255, 0, 0), np.uint8)
    made = tuple(replace(record, image=red) for record in data.train_defects)
    task = new_locator_task(replace(data, synthetic=made))
    task.recipe = replace(task.recipe, defect_share=1.0, synthetic_share=0.25)

    drawn = [task.draw_batch(np.random.default_rng(i))["image"] for i in range(40)]

    colours = torch.cat(drawn).float().mean((1, 2))
    assert abs((colours[:, 0] > colours[:, 2] + 60).float().mean() - 0.25) < 0.12
