"""The promise that matters most: a killed training ends where an unbroken one would have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim import SGD

from tests.training.specks import SIDE_PX, draw_source
from training.data import Dataset, store_samples
from training.experiments import trial
from training.importers import import_folder
from training.networks.generators import MaskGenerator
from training.networks.locators import build_locator
from training.recipes import Schedule
from training.trainers.judges import MaskJudge
from training.trainers.locator_task import LocatorTask
from training.trainers.loop import Batch, Judgement, Miner, RunMixed, Task, run_loop
from training.trainers.mask_task import MaskTask

ROOT = Path(__file__).parents[3]
SCHEDULE = Schedule(
    steps=8, batch=2, learning_rate=1e-3, validate_every=4, checkpoint_every=3, ema_decay=0.5
)


class MachineDied(Exception):
    """What a kill looks like from inside."""


class Doomed:
    """A task whose machine dies when it draws its nth batch."""

    def __init__(self, task: Task, *, draws: int) -> None:
        self.task, self.draws = task, draws
        self.name, self.product = task.name, task.product
        self.networks, self.optimizers = task.networks, task.optimizers
        self.take_step, self.judge = task.take_step, task.judge
        if isinstance(task, Miner):
            self.hard, self.mine = task.hard, task.mine

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        self.draws -= 1
        if self.draws < 0:
            raise MachineDied
        return self.task.draw_batch(rng)


class LineTask:
    """The smallest task there is: one number that should become 3; judged by the real value."""

    name = product = "line"

    def __init__(self, scores: list[float] | None = None) -> None:
        torch.manual_seed(0)
        self.networks: dict[str, nn.Module] = {"line": nn.Conv2d(1, 1, 1, bias=False)}
        optimizer = SGD(self.networks["line"].parameters(), lr=0.1)
        optimizer.param_groups[0]["initial_lr"] = 0.1
        self.optimizers: dict[str, torch.optim.Optimizer] = {"sgd": optimizer}
        self.scores, self.rates = scores or [], list[float]()

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        return {"x": torch.from_numpy(rng.uniform(0.5, 1, (4, 1, 1, 1)).astype(np.float32))}

    def take_step(self, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
        optimizer = self.optimizers["sgd"]
        self.rates.append(optimizer.param_groups[0]["lr"])
        loss = (self.networks["line"](batch["x"]) - 3 * batch["x"]).pow(2).mean()
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        return {"gap": loss.detach()}

    def judge(self, network: nn.Module) -> Judgement:
        (weight,) = network.parameters()
        score = self.scores.pop(0) if self.scores else -abs(float(weight) - 3)
        return Judgement(score, {"weight": float(weight)}, np.zeros((8, 8, 3), np.uint8))


class Tally:
    """How often something was mined."""

    def __init__(self) -> None:
        self.mined = 0

    def state_dict(self) -> dict[str, Any]:
        return {"mined": self.mined}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mined = state["mined"]


class MiningTask(LineTask):
    """Notes how much was mined before each batch, and what was seen with which chance."""

    def __init__(self) -> None:
        super().__init__()
        self.hard, self.at_batches, self.looks = Tally(), list[int](), list[tuple[float, float]]()

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        self.at_batches.append(self.hard.mined)
        return super().draw_batch(rng)

    def mine(self, network: nn.Module, rng: np.random.Generator) -> None:
        (weight,) = network.parameters()
        self.hard.mined += 1
        self.looks.append((float(weight), rng.random()))


def locator_task(data: Dataset) -> Task:
    torch.manual_seed(3)
    recipe = trial()
    shares = {"defect_share": 0.2, "hard_share": 0.7}
    recipe = replace(
        recipe, locator=replace(recipe.locator, schedule=SCHEDULE, side_px=64, **shares)
    )
    return LocatorTask(build_locator("plain"), data, recipe)


def mask_task(data: Dataset) -> Task:
    torch.manual_seed(3)
    recipe = replace(trial().mask_generator, schedule=SCHEDULE)
    network = MaskGenerator(2, side_px=SIDE_PX, width=8, pages=recipe.pages)
    source = draw_source(data)
    return MaskTask(network, source, recipe, MaskJudge(source, seed=1))


def leaves(state: Any) -> list[Any]:
    """Every tensor and number of a checkpoint, in order."""
    if isinstance(state, dict):
        return [leaf for key in state for leaf in [key, *leaves(state[key])]]
    if isinstance(state, list | tuple):
        return [leaf for part in state for leaf in leaves(part)]
    return [state]


def read(file: Path) -> list[Any]:
    return leaves(torch.load(file, weights_only=True))


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("new_task", [locator_task, mask_task])
@pytest.mark.parametrize("draws", [2, 5, 8])
def test_a_killed_training_ends_with_the_very_weights_of_an_unbroken_one(
    tmp_path: Path, data: Dataset, fabric: Fabric, new_task: Callable[[Dataset], Task], draws: int
) -> None:
    unbroken = new_task(data)
    figures = run_loop(unbroken, SCHEDULE, tmp_path / "a", seed=5, fabric=fabric)

    with pytest.raises(MachineDied):
        run_loop(
            Doomed(new_task(data), draws=draws - 1), SCHEDULE, tmp_path / "b", seed=5, fabric=fabric
        )
    again = run_loop(new_task(data), SCHEDULE, tmp_path / "b", seed=5, fabric=fabric)

    assert again == figures
    for file in (f"{unbroken.name}.pt", f"{unbroken.name}.checkpoint.pt"):
        assert same(read(tmp_path / "a" / file), read(tmp_path / "b" / file))


def test_every_batch_after_a_validation_and_none_before_sees_what_was_mined_there(tmp_path, fabric):
    task = MiningTask()

    run_loop(task, SCHEDULE, tmp_path, seed=5, fabric=fabric)

    assert task.at_batches == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({weight for weight, _ in task.looks}) == 2
    assert len({chance for _, chance in task.looks}) == 2


def test_what_was_mined_before_a_kill_is_known_after_it(tmp_path, fabric):
    with pytest.raises(MachineDied):
        run_loop(Doomed(MiningTask(), draws=7), SCHEDULE, tmp_path, seed=5, fabric=fabric)
    again = MiningTask()

    run_loop(again, SCHEDULE, tmp_path, seed=5, fabric=fabric)

    assert again.at_batches == [1, 1]
    assert again.hard.mined == 2


@pytest.mark.parametrize(("draws", "kept"), [(3, None), (4, 3), (6, 4), (8, 6)])
def test_a_kill_costs_the_steps_since_the_last_checkpoint(tmp_path, fabric, draws, kept):
    with pytest.raises(MachineDied):
        run_loop(Doomed(LineTask(), draws=draws - 1), SCHEDULE, tmp_path, seed=5, fabric=fabric)

    file = tmp_path / "line.checkpoint.pt"
    assert (torch.load(file, weights_only=True)["step"] if file.exists() else None) == kept


def test_a_finished_training_is_not_trained_again(tmp_path, fabric):
    figures = run_loop(LineTask(), SCHEDULE, tmp_path, seed=5, fabric=fabric)
    before = read(tmp_path / "line.checkpoint.pt")
    task = LineTask()

    assert run_loop(task, SCHEDULE, tmp_path, seed=5, fabric=fabric) == figures
    assert task.rates == []
    assert same(read(tmp_path / "line.checkpoint.pt"), before)


def test_the_best_average_is_kept_and_not_the_last(tmp_path, fabric):
    task = LineTask(scores=[0.0, 1.0, 0.5])

    figures = run_loop(task, SCHEDULE, tmp_path, seed=5, fabric=fabric)

    (kept,) = torch.load(tmp_path / "line.pt", weights_only=True).values()
    checkpoint = torch.load(tmp_path / "line.checkpoint.pt", weights_only=True)
    assert float(kept) == figures["weight"]
    assert float(kept) != float(checkpoint["parts"]["average"]["module.weight"])
    assert checkpoint["best_score"] == 1.0


def test_a_start_that_training_only_harms_is_kept(tmp_path, fabric):
    task = LineTask(scores=[1.0, 0.5, 0.0])
    start = task.networks["line"].weight.item()

    figures = run_loop(task, SCHEDULE, tmp_path, seed=5, fabric=fabric)

    assert figures["weight"] == pytest.approx(start)


def test_another_seed_ends_elsewhere(tmp_path, fabric):
    ends = [
        run_loop(LineTask(), SCHEDULE, tmp_path / str(seed), seed=seed, fabric=fabric)["weight"]
        for seed in (5, 6, 5)
    ]

    assert ends[0] == ends[2] != ends[1]


@pytest.mark.parametrize(("decays", "last"), [(True, 0.5 * (1 + np.cos(0.99 * np.pi))), (False, 1)])
def test_the_rate_warms_up_and_falls_where_it_shall(tmp_path, fabric, decays, last):
    task = LineTask()
    schedule = Schedule(100, 4, 0.1, validate_every=100, decays=decays)

    run_loop(task, schedule, tmp_path, seed=5, fabric=fabric)

    assert task.rates[0] == pytest.approx(0.05)
    assert max(task.rates) == pytest.approx(0.1, rel=0.01)
    assert task.rates[-1] == pytest.approx(0.1 * last)


def test_a_rate_that_restarts_rises_and_falls_once_more(tmp_path, fabric):
    task, once = LineTask(), LineTask()
    schedule = Schedule(150, 4, 0.1, validate_every=150, restart=100)

    run_loop(task, schedule, tmp_path / "twice", seed=5, fabric=fabric)
    run_loop(once, Schedule(100, 4, 0.1, 100), tmp_path / "once", seed=5, fabric=fabric)

    assert task.rates[:100] == once.rates
    assert task.rates[100] == pytest.approx(0.1)
    assert task.rates[125] == pytest.approx(0.05)
    assert task.rates[149] < 0.001


def test_curves_and_sample_sheets_are_written(tmp_path, fabric):
    schedule = Schedule(40, 4, 0.1, validate_every=20)

    run_loop(LineTask(), schedule, tmp_path, seed=5, fabric=fabric)

    written = EventAccumulator(str(tmp_path / "curves" / "line")).Reload()
    assert [event.step for event in written.Scalars("loss/gap")] == [20, 40]
    assert [event.step for event in written.Scalars("val/weight")] == [0, 20, 40]
    assert [event.step for event in written.Images("val")] == [0, 20, 40]


TWO_PROCESSES = """
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

from training.data import load_dataset
from training.experiments import trial
from training.trainers.loop import run_loop
from training.trainers.stages import new_task

run = Path(sys.argv[1])
fabric = Fabric(accelerator="cpu", devices=2)
fabric.launch()
for stage in ("locator", "mask_generator"):
    torch.manual_seed(fabric.global_rank)
    task, schedule = new_task(stage, run, trial(), load_dataset(run))
    run_loop(task, schedule, run, seed=5, fabric=fabric)
    weights = {name: network.state_dict() for name, network in task.networks.items()}
    torch.save(weights, run / f"{stage}.{fabric.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path, mask_folder):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)
    (tmp_path / "script.py").write_text(TWO_PROCESSES)

    subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        check=True,
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=240,
    )

    for stage in ("locator", "mask_generator"):
        first, second = (torch.load(tmp_path / f"{stage}.{rank}.pt") for rank in (0, 1))
        assert first.keys() == second.keys()
        for name, weights in first.items():
            learnt = [key for key in weights if key.endswith(("weight", "bias", "original"))]
            assert learnt
            assert all(torch.equal(weights[key], second[name][key]) for key in learnt)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, fabric):
    run_loop(LineTask(), SCHEDULE, tmp_path, seed=5, fabric=fabric, origin="these pictures")

    with pytest.raises(RunMixed, match="other pictures"):
        run_loop(LineTask(), SCHEDULE, tmp_path, seed=5, fabric=fabric, origin="others")
