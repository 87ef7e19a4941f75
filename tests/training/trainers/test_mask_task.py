from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.experiments import trial
from training.networks.generators import MaskGenerator
from training.recipes import MaskGeneratorRecipe, Schedule
from training.trainers.judges import MaskJudge
from training.trainers.mask_task import MaskTask

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=1e-3, validate_every=4)
RECIPE = replace(trial().mask_generator, schedule=SCHEDULE)


@pytest.fixture(scope="module")
def judge(data) -> MaskJudge:
    return MaskJudge(draw_source(data), seed=1)


def new_task(data, judge: MaskJudge, recipe: MaskGeneratorRecipe = RECIPE) -> MaskTask:
    torch.manual_seed(0)
    network = MaskGenerator(2, side_px=SIDE_PX, width=8, pages=recipe.pages)
    return MaskTask(network, draw_source(data), recipe, judge)


def take_steps(task: MaskTask, fabric: Fabric, *, steps: int) -> list[dict[str, Tensor]]:
    for name, network in task.networks.items():
        task.networks[name] = fabric.setup_module(network)
    told = []
    for step in range(steps):
        torch.manual_seed(step)
        told.append(task.take_step(task.draw_batch(np.random.default_rng(step)), fabric))
    return told


def narrow_objects(data) -> dict[str, np.ndarray]:
    """Objects that end within every square."""
    return {r.name: np.arange(128)[None] < np.full((96, 1), 32) for r in data.val}


def weights_of(task: MaskTask) -> dict[str, Tensor]:
    return {
        name: torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        for name, network in task.networks.items()
    }


def test_generator_and_both_critics_learn_and_every_loss_stays_finite(data, judge, fabric):
    task = new_task(data, judge, replace(RECIPE, mode_seeking_weight=0.1))
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


def test_mode_seeking_is_looked_at_only_where_it_is_asked_for(data, judge, fabric):
    (told,) = take_steps(new_task(data, judge), fabric, steps=1)

    assert "mode_seeking" not in told


def test_a_book_of_real_shapes_answers_with_real_areas_before_any_training(data, judge):
    task = new_task(data, judge)

    with torch.no_grad():
        figures = task.judge(task.networks["mask_generator"].eval()).figures

    assert figures["empty"] == 0.0
    assert figures["diversity"] > 0.05
    assert figures["ks_log_area"] < 0.5


def test_the_book_holds_the_sources_own_shapes(data, judge):
    task = new_task(data, judge)
    book = task.networks["mask_generator"].book

    assert book.labels.tolist() == [0] * 4 + [1] * 4
    areas = (book.pages > 0).sum((1, 2, 3))
    assert areas[:4].min() > areas[4:].max()


def test_without_critics_and_book_the_areas_come_near_the_real_ones(data, judge, fabric):
    off = {"image_weight": 0, "region_weight": 0, "boundary_weight": 0, "binary_weight": 0}

    told = take_steps(new_task(data, judge, replace(RECIPE, pages=0, **off)), fabric, steps=25)

    gaps = [float(losses["log_area"]) for losses in told]
    assert np.mean(gaps[-5:]) < 0.7 * np.mean(gaps[:5])


def test_masks_are_imagined_for_every_other_square_of_a_normal_picture(data, judge):
    task = new_task(data, judge)
    dark = tuple(replace(r, name=f"dark {r.name}", image=r.image // 4) for r in data.val_normals)
    task.source = replace(task.source, normals=dark)

    batch = task.draw_batch(np.random.default_rng(0))

    for kind in ("", "real_"):
        light = batch[f"{kind}image"].float().mean((1, 2, 3))
        assert (light > 100).tolist() == [True, False] * 2


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
        task.source.objects |= narrow_objects(data)
        take_steps(task, fabric, steps=1)
        gradients.append(task.networks["mask_generator"].head.weight.grad)

    assert gradients[0].abs().max() > 0
    assert torch.allclose(2 * gradients[0], gradients[1], rtol=1e-4)


def test_a_batch_shows_each_label_its_own_masks(data, judge):
    batch = new_task(data, judge).draw_batch(np.random.default_rng(0))

    assert batch["real_mask"].shape == (4, 1, SIDE_PX, SIDE_PX)
    assert batch["image"].shape == (4, SIDE_PX, SIDE_PX, 3)
    assert (batch["real_mask"].amax((1, 2, 3)) > 0.5).all()
    assert (batch["distance"] == 0).all()


def test_distance_grows_outside_the_object(data, judge):
    task = new_task(data, judge)
    task.source.objects |= narrow_objects(data)

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


def test_a_step_is_taken_at_half_precision_too(data, judge):
    task = new_task(data, judge)
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")

    told = take_steps(task, half, steps=1)

    assert all(torch.isfinite(value) for value in told[0].values())
