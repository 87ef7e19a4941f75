from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.networks.generators import DefectGenerator
from training.recipes import DefectGeneratorRecipe, Schedule, trial
from training.trainers.defect_task import DefectTask
from training.trainers.judges import DefectJudge

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=1e-3, validate_every=4)
RECIPE = replace(trial().defect_generator, schedule=SCHEDULE)
LEAST = [20.0, 20.0]
NAMES = ("image", "region", "reconstruction", "visibility", "mode_seeking")


@pytest.fixture(scope="module")
def judge(data) -> DefectJudge:
    return DefectJudge(draw_source(data), LEAST, RECIPE.feather_px, seed=1)


def new_task(data, judge: DefectJudge, recipe: DefectGeneratorRecipe = RECIPE) -> DefectTask:
    torch.manual_seed(0)
    network = DefectGenerator(2, side_px=SIDE_PX, width=8, noise_size=recipe.noise_size)
    return DefectTask(network, draw_source(data), recipe, judge, LEAST)


def take_steps(
    task: DefectTask, fabric: Fabric, *, steps: int, fixed: bool = False
) -> list[dict[str, Tensor]]:
    for name, network in task.networks.items():
        task.networks[name] = fabric.setup_module(network)
    told = []
    for step in range(steps):
        torch.manual_seed(step)
        batch = task.draw_batch(np.random.default_rng(0 if fixed else step))
        told.append(task.take_step(batch, fabric))
    return told


def weights_of(task: DefectTask) -> dict[str, Tensor]:
    return {
        name: torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        for name, network in task.networks.items()
    }


def test_generator_and_both_critics_learn_and_every_loss_stays_finite(data, judge, fabric):
    task = new_task(data, judge)
    before = weights_of(task)

    told = take_steps(task, fabric, steps=3)

    assert set(told[0]) == {"image_critic", "region_critic", *NAMES}
    assert all(torch.isfinite(value) for losses in told for value in losses.values())
    for name, weights in weights_of(task).items():
        assert torch.isfinite(weights).all()
        assert not torch.equal(weights, before[name])


def test_a_fixed_batch_is_rebuilt_better_and_better(data, judge, fabric):
    fast = replace(SCHEDULE, learning_rate=5e-3)
    off = {"image_weight": 0, "region_weight": 0, "mode_seeking_weight": 0}
    recipe = replace(RECIPE, schedule=fast, **off)

    told = take_steps(new_task(data, judge, recipe), fabric, steps=25, fixed=True)

    gaps = [float(losses["reconstruction"]) for losses in told]
    assert gaps[-1] < 0.75 * gaps[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_nothing_switches_its_loss_off(data, judge, fabric, name):
    others = {f"{n}_weight": 0.0 for n in NAMES if n != name}
    gradients = []
    for weight in (1.0, 2.0):
        task = new_task(data, judge, replace(RECIPE, **others, **{f"{name}_weight": weight}))
        task.least = task.least * 100
        take_steps(task, fabric, steps=1)
        parameters = task.networks["defect_generator"].parameters()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    assert gradients[0].abs().max() > 0
    assert torch.allclose(2 * gradients[0], gradients[1], rtol=1e-3, atol=1e-7)


def test_a_batch_holds_the_square_with_and_without_its_defect(data, judge):
    batch = new_task(data, judge).draw_batch(np.random.default_rng(0))

    change = (batch["real_image"].float() - batch["pseudo_normal"].float()).abs().mean(3)
    inside = batch["real_mask"][:, 0] == 1
    assert change[inside].mean() > 40
    assert (batch["feather"] > 0).eq(batch["mask"] == 1).all()
    assert batch["mask_u8"].dtype == torch.uint8


def test_the_same_rng_draws_the_same_batch(data, judge):
    task = new_task(data, judge)

    first, second = (task.draw_batch(np.random.default_rng([3, 4])) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)
