from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.networks.generators import MaskGenerator
from training.recipes import MaskGeneratorRecipe, Schedule, trial
from training.trainers.judges import MaskJudge
from training.trainers.mask_task import MaskTask

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=1e-3, validate_every=4)
RECIPE = replace(trial().mask_generator, schedule=SCHEDULE)


@pytest.fixture(scope="module")
def judge(data) -> MaskJudge:
    return MaskJudge(draw_source(data), seed=1)


def new_task(data, judge: MaskJudge, recipe: MaskGeneratorRecipe = RECIPE) -> MaskTask:
    torch.manual_seed(0)
    network = MaskGenerator(2, side_px=SIDE_PX, width=8, noise_size=recipe.noise_size)
    return MaskTask(network, draw_source(data), recipe, judge)


def take_steps(task: MaskTask, fabric: Fabric, *, steps: int) -> list[dict[str, Tensor]]:
    for name, network in task.networks.items():
        task.networks[name] = fabric.setup_module(network)
    told = []
    for step in range(steps):
        torch.manual_seed(step)
        told.append(task.take_step(task.draw_batch(np.random.default_rng(step)), fabric))
    return told


def weights_of(task: MaskTask) -> dict[str, Tensor]:
    return {
        name: torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        for name, network in task.networks.items()
    }


def test_generator_and_both_critics_learn_and_every_loss_stays_finite(data, judge, fabric):
    task = new_task(data, judge)
    before = weights_of(task)

    told = take_steps(task, fabric, steps=3)

    assert set(told[0]) == {
        *("image_critic", "region_critic", "image", "region"),
        *("boundary", "log_area", "binary", "mode_seeking"),
    }
    assert all(torch.isfinite(value) for losses in told for value in losses.values())
    for name, weights in weights_of(task).items():
        assert torch.isfinite(weights).all()
        assert not torch.equal(weights, before[name])


def test_without_critics_the_areas_come_near_the_real_ones(data, judge, fabric):
    recipe = replace(RECIPE, image_weight=0, region_weight=0, boundary_weight=0, binary_weight=0)

    told = take_steps(new_task(data, judge, recipe), fabric, steps=25)

    gaps = [float(losses["log_area"]) for losses in told]
    assert np.mean(gaps[-5:]) < 0.7 * np.mean(gaps[:5])


@pytest.mark.parametrize(
    "name", ["image", "region", "boundary", "log_area", "binary", "mode_seeking"]
)
def test_a_weight_of_nothing_switches_its_loss_off(data, judge, fabric, name):
    names = ("image", "region", "boundary", "log_area", "binary", "mode_seeking")
    others = {f"{n}_weight": 0.0 for n in names if n != name}
    alone = new_task(data, judge, replace(RECIPE, **others, **{f"{name}_weight": 1.0}))
    doubled = new_task(data, judge, replace(RECIPE, **others, **{f"{name}_weight": 2.0}))

    gradients = []
    for task in (alone, doubled):
        take_steps(task, fabric, steps=1)
        (head,) = [p for p in task.networks["mask_generator"].parameters() if p.shape[:2] == (1, 8)]
        gradients.append(head.grad)

    assert gradients[0].abs().max() > 0 or name == "boundary"
    assert torch.allclose(2 * gradients[0], gradients[1], rtol=1e-4)


def test_a_batch_shows_each_label_its_own_masks(data, judge):
    batch = new_task(data, judge).draw_batch(np.random.default_rng(0))

    assert batch["real_mask"].shape == (4, 1, SIDE_PX, SIDE_PX)
    assert batch["image"].shape == (4, SIDE_PX, SIDE_PX, 3)
    assert (batch["real_mask"].amax((1, 2, 3)) > 0.5).all()
    assert (batch["distance"] == 0).all()


def test_distance_grows_outside_the_object(data, judge):
    task = new_task(data, judge)
    task.source.objects |= {r.name: np.arange(128)[None] < np.full((96, 1), 64) for r in data.val}

    batch = task.draw_batch(np.random.default_rng(0))

    legal = batch["object"][:, None] == 255
    assert (batch["distance"][legal] == 0).all()
    assert (batch["distance"][~legal] > 0).all()
    assert (~legal).any()


def test_the_same_rng_draws_the_same_batch(data, judge):
    task = new_task(data, judge)

    first, second = (task.draw_batch(np.random.default_rng([3, 4])) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_distance_is_the_squares_side_where_no_object_is_seen(data, judge):
    task = new_task(data, judge)
    task.source = replace(task.source, crop_scale=(6.0, 6.0))
    speck = np.zeros((96, 128), bool)
    speck[48, 64] = True
    task.source.objects |= {r.name: speck for r in (*data.train, *data.val)}

    batch = task.draw_batch(np.random.default_rng(0))

    unseen = (batch["object"] == 0).all(2).all(1)
    assert unseen.any()
    assert (batch["distance"][unseen] == SIDE_PX).all()
