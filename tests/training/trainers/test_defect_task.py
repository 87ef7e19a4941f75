from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.experiments import trial
from training.networks.generators import DefectGenerator
from training.recipes import DefectGeneratorRecipe, Schedule
from training.trainers.adversarial import unit
from training.trainers.defect_task import REGION_PX, DefectTask
from training.trainers.judges import DefectJudge

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=1e-3, validate_every=4)
RECIPE = replace(trial().defect_generator, schedule=SCHEDULE)
LEAST = [20.0, 20.0]
NAMES = ("image", "region", "reconstruction", "texture", "visibility", "mode_seeking")


@pytest.fixture(scope="module")
def judge(data) -> DefectJudge:
    return DefectJudge(draw_source(data), LEAST, RECIPE.feather_px, seed=1)


def new_task(data, judge: DefectJudge, recipe: DefectGeneratorRecipe = RECIPE) -> DefectTask:
    torch.manual_seed(0)
    network = DefectGenerator(
        2,
        side_px=SIDE_PX,
        width=8,
        pages=recipe.pages,
        modulated=recipe.modulated,
        focused=recipe.focused,
    )
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
    task = new_task(data, judge, replace(RECIPE, mode_seeking_weight=0.1))
    before = weights_of(task)

    told = take_steps(task, fabric, steps=3)

    assert set(told[0]) == {"image_critic", "region_critic", *NAMES}
    assert all(torch.isfinite(value) for losses in told for value in losses.values())
    for name, weights in weights_of(task).items():
        assert torch.isfinite(weights).all()
        assert not torch.equal(weights, before[name])


def test_mode_seeking_is_looked_at_only_where_it_is_asked_for(data, judge, fabric):
    (told,) = take_steps(new_task(data, judge), fabric, steps=1)

    assert "mode_seeking" not in told


@pytest.mark.parametrize(
    "left_out",
    [
        {"pages": 0},
        {"modulated": False},
        {"focused": False},
        {"image_weight": 0.0, "region_weight": 0.0},
    ],
    ids=str,
)
def test_a_part_can_be_left_out_of_the_training(data, judge, fabric, left_out):
    task = new_task(data, judge, replace(RECIPE, **left_out))
    before = weights_of(task)["defect_generator"]

    told = take_steps(task, fabric, steps=2)

    after = weights_of(task)["defect_generator"]
    assert all(torch.isfinite(value) for losses in told for value in losses.values())
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)


def test_a_book_of_real_defects_paints_a_change_like_theirs_before_any_training(data, judge):
    task = new_task(data, judge)
    batch = task.draw_batch(np.random.default_rng(1))
    real = unit(batch["real_whole"])
    noise = torch.zeros(4, task.networks["defect_generator"].noise_size)
    share = F.one_hot(batch["real_page"], 2 * RECIPE.pages).float()

    with torch.no_grad():
        rebuilt = task._paint(batch, "real_", noise, share)

    ground = unit(batch["real_image"])
    inside = batch["real_feather"] > 0.9
    asked, painted = ((x - ground)[inside.expand_as(x)].mean() for x in (real, rebuilt))
    assert (rebuilt - ground)[(batch["real_mask"] == 0).expand_as(ground)].abs().max() == 0
    assert painted / asked == pytest.approx(1.0, abs=0.3)


def test_without_a_book_a_fixed_batch_is_rebuilt_better_and_better(data, judge, fabric):
    fast = replace(SCHEDULE, learning_rate=5e-3)
    off = {"image_weight": 0, "region_weight": 0, "texture_weight": 0}
    recipe = replace(RECIPE, schedule=fast, pages=0, **off)

    told = take_steps(new_task(data, judge, recipe), fabric, steps=60, fixed=True)

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


def test_a_batch_holds_real_defects_and_the_squares_they_are_moved_to(data, judge):
    batch = new_task(data, judge).draw_batch(np.random.default_rng(0))

    change = (batch["real_whole"].float() - batch["real_image"].float()).abs().mean(3)
    inside = batch["real_mask"][:, 0] == 1
    assert change[inside].mean() > 40
    for kind in ("", "real_"):
        assert (batch[f"{kind}feather"] > 0).eq(batch[f"{kind}mask"] == 1).all()
        assert batch[f"{kind}mask_u8"].dtype == torch.uint8


def test_a_real_defect_is_told_by_its_page(data, judge):
    task = new_task(data, judge)

    batch = task.draw_batch(np.random.default_rng(0))

    pages = [task.pages[number] for number in batch["real_page"]]
    assert [label for label, _ in pages] == batch["label"].tolist()
    assert set(task.known) == {(k, i) for k in (0, 1) for i in range(3)}


def test_half_of_the_squares_are_normal_pictures_for_fakes_and_real_ones_alike(data, judge):
    task = new_task(data, judge)
    dark = tuple(replace(r, name=f"dark {r.name}", image=r.image // 4) for r in data.val_normals)
    task.source = replace(task.source, normals=dark)

    batch = task.draw_batch(np.random.default_rng(0))

    for kind in ("", "real_"):
        light = batch[f"{kind}image"].float().mean((1, 2, 3))
        assert (light > 80).tolist() == [True, False] * 2


def test_critics_see_real_defects_in_the_light_of_their_new_square(data, judge, fabric):
    task, seen = new_task(data, judge), []
    dark = tuple(replace(r, name=f"dark {r.name}", image=r.image // 2) for r in data.val_normals)
    task.source = replace(task.source, normals=dark)
    batch = task.draw_batch(np.random.default_rng(0))
    critic = task.networks["image_critic"]
    critic.register_forward_hook(lambda _module, given, _out: seen.append(given[0].detach()))

    torch.manual_seed(0)
    for name, network in task.networks.items():
        task.networks[name] = fabric.setup_module(network)
    task.take_step(batch, fabric)

    real, fake, mask = seen[0][:, :3], seen[1][:, :3], seen[0][:, 3]
    assert abs(float(fake.mean() - real.mean())) < 0.2
    bright = [
        float(one.mean(0)[where > 0].max())
        for one, where, label in zip(real, mask, batch["label"], strict=True)
        if label == 1
    ]
    elsewhere = [bool(index % 2) for index, label in enumerate(batch["label"]) if label == 1]
    assert set(elsewhere) == {True, False}
    assert all((grey < 0.5) == is_moved for grey, is_moved in zip(bright, elsewhere, strict=True))


def test_the_region_critic_sees_each_defect_fill_its_square(data, judge, fabric):
    task, seen = new_task(data, judge), []
    batch = task.draw_batch(np.random.default_rng(0))
    critic = task.networks["region_critic"]
    critic.register_forward_hook(lambda _module, given, _out: seen.append(given[0].detach()))
    for name, network in task.networks.items():
        task.networks[name] = fabric.setup_module(network)

    task.take_step(batch, fabric)

    mask = (seen[0][:, 3] + 1) / 2
    for one in mask:
        rows, columns = np.nonzero(one.numpy() > 0.5)
        assert max(np.ptp(rows), np.ptp(columns)) > 0.6 * REGION_PX


def test_the_same_rng_draws_the_same_batch(data, judge):
    task = new_task(data, judge)

    first, second = (task.draw_batch(np.random.default_rng([3, 4])) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_step_is_taken_at_half_precision_too(data, judge):
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")

    told = take_steps(new_task(data, judge), half, steps=1)

    assert all(torch.isfinite(value) for value in told[0].values())
