from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.locating import predict_field
from tests.training.specks import draw_record
from training.experiments import trial
from training.networks.deeppose import DeepPose
from training.recipes import PoseRecipe, Schedule
from training.trainers.pose_task import (
    HINTS,
    MOST,
    PoseTask,
    look_through,
    pad_points,
    point_losses,
    torch_pose,
)

LOCATOR = PoseRecipe(
    Schedule(steps=9, batch=4, learning_rate=1e-3, validate_every=9),
    look_hw=(96, 128),
    side_px=64,
    refined=4,
)


@pytest.fixture
def task(data) -> PoseTask:
    torch.manual_seed(0)
    network = DeepPose(LOCATOR.look_hw, LOCATOR.side_px, LOCATOR.refined)
    return PoseTask(network, data, replace(trial(), locator=LOCATOR))


def test_a_few_steps_on_one_batch_lower_its_losses(task, fabric):
    task.networks["locator"] = fabric.setup_module(task.networks["locator"])
    batch = task.draw_batch(np.random.default_rng(0))

    told = [task.take_step(batch, fabric) for _ in range(12)]

    assert set(told[0]) == {
        "slot", "place", "sigma", "refined", "refined_place", "refined_sigma",
    }  # fmt: skip
    assert told[-1]["slot"] < 0.7 * told[0]["slot"]
    assert sum(t["refined"] for t in told[-3:]) < sum(t["refined"] for t in told[:3])


def test_a_batch_of_pictures_without_defects_can_be_learned_from(task, fabric):
    task.data = replace(task.data, train=task.data.train_normals)
    task.recipe = replace(task.recipe, defect_share=0.0)

    losses = task.take_step(task.draw_batch(np.random.default_rng(0)), fabric)

    assert losses["place"] == losses["refined_place"] == 0.0
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_the_same_rng_draws_the_same_batch(task):
    first, second = (task.draw_batch(np.random.default_rng([1, 2])) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_truths_lie_on_the_defects_of_the_moved_picture(task):
    batch = task.draw_batch(np.random.default_rng(3))

    grey = batch["image"].float().mean(3)
    told = [(b, *map(int, xy[:2])) for b, rows in enumerate(batch["truth"]) for xy in rows if xy[2]]
    off = [abs(grey[b, y, x] - grey[b].median()) for b, x, y in told]
    assert len(told) >= 3
    assert np.mean(off) > 30


def test_hints_are_the_slots_of_the_defects(task):
    batch = task.draw_batch(np.random.default_rng(3))
    rows, columns = task.slots_hw

    assert batch["hints"].shape == (4, HINTS)
    for truth, size, hints in zip(batch["truth"], batch["size"], batch["hints"], strict=True):
        for x, y, _ in truth[truth[:, 2] > 0][:1]:
            slot = int(y / size[1] * rows) * columns + int(x / size[0] * columns)
            assert slot in hints.tolist() or (truth[:, 2] > 0).sum() > HINTS


@pytest.mark.parametrize("factors", [(1.0, 1.0), (-1.0, 1.0), (1.3, 1.3), (-0.75, -0.75)])
def test_a_defect_is_where_its_moved_truth_says(factors):
    record = draw_record(3, kinds=(1,))

    view = look_through(record, np.array(factors), np.array([4.0, -3.0]))

    (point,) = view.points
    height, width = view.image.shape[:2]
    grey = view.image.astype(float).mean(2)
    rows, columns = np.nonzero(grey < 100)
    assert view.image.shape == record.image.shape
    assert abs(columns.mean() + 0.5 - point[0]) < 1.5
    assert abs(rows.mean() + 0.5 - point[1]) < 1.5
    assert 0 <= point[0] < width
    assert 0 <= point[1] < height


def test_a_defect_that_is_moved_out_is_no_truth():
    record = draw_record(3, kinds=(1,))

    view = look_through(record, np.ones(2), np.array([2000.0, 0.0]))

    assert view.points.shape == (0, 2)


def test_points_are_padded_and_too_many_cut():
    few, many = pad_points(np.array([[3.0, 4.0]])), pad_points(np.ones((MOST + 5, 2)))

    assert few.shape == many.shape == (MOST, 3)
    assert few[0].tolist() == [3.0, 4.0, 1.0]
    assert not few[1:].any()
    assert (many[:, 2] == 1).all()


def test_a_sigma_as_wide_as_the_error_costs_least():
    goal = torch.tensor([[3.0, 4.0]])
    costs = {
        sigma: float(point_losses(torch.tensor([[0.0, 0.0, sigma]]), goal)[1])
        for sigma in (1.0, 5 / 2**0.5, 9.0)
    }

    assert min(costs, key=costs.__getitem__) == 5 / 2**0.5
    assert float(point_losses(torch.tensor([[0.0, 0.0, 1.0]]), goal)[0]) == 3.5


def test_a_torch_network_answers_as_the_seam_asks(task):
    network = task.networks["locator"].eval()
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)

    field = predict_field(image, torch_pose(network))

    assert field.image_hw == (90, 130)
    assert len(field.peaks(64, min_confidence=0.0, radius_px=8)) == 12


def test_validation_tells_what_the_heatmaps_tells(task):
    judgement = task.judge(task.networks["locator"].eval())

    assert set(judgement.figures) == {"coverage_at_1", "coverage_at_5", "image_auroc"}
    assert judgement.score == pytest.approx(sum(judgement.figures.values()))
