from __future__ import annotations

import fcntl
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.training.specks import draw_record
from training.data import Record
from training.downstream import (
    FIGURES,
    Result,
    Table,
    read_table,
    run_experiment,
    val_pictures,
)
from training.recipes import DownstreamRecipe, Schedule
from training.trainers.arms import Arm

SCHEDULE = Schedule(steps=2, batch=2, learning_rate=1e-3, validate_every=1)
RECIPE = DownstreamRecipe(schedule=SCHEDULE, side_px=64, pairs=3)
REAL = {"real": Arm(is_augmented=False)}


def draw_speck(rng: np.random.Generator) -> Record:
    return draw_record(int(rng.integers(1000)), kinds=(1,))


def table_of(scores: dict[str, list[float]]) -> Table:
    return Table(
        tuple(
            Result(arm, seed, "", dict.fromkeys(FIGURES, score))
            for arm, values in scores.items()
            for seed, score in enumerate(values)
        )
    )


def test_a_table_tells_mean_and_spread_of_an_arm():
    told = table_of({"real": [0.4, 0.5, 0.6]}).mean("real", "pooled_ap")

    assert told.mean == pytest.approx(0.5)
    assert told.error == pytest.approx(0.1)


def test_differences_are_paired_by_seed():
    table = table_of({"ours": [0.5, 0.7, 0.9], "classic": [0.4, 0.6, 0.8, 0.0]})

    gain = table.difference("ours", "classic", FIGURES[0])

    assert gain.mean == pytest.approx(0.1)
    assert gain.error == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_a_difference_shrinks_with_the_seeds():
    table = table_of({"ours": [0.1, 0.3] * 8, "classic": [0.0] * 16})

    assert table.difference("ours", "classic", "iou").error == pytest.approx(0.1033 / 4, rel=1e-3)


def test_the_best_procedural_arm_is_neither_classic_nor_ours():
    table = table_of({"classic": [0.9], "perlin": [0.3], "poisson": [0.4], "ours": [0.8]})

    assert table.best_procedural == "poisson"
    assert table_of({"classic": [0.9]}).best_procedural is None


def test_the_lines_of_a_table_name_arms_and_gains():
    lines = list(table_of({"classic": [0.2, 0.3], "poisson": [0.4], "ours": [0.5, 0.6]}).lines())

    assert [line[:24].strip() for line in lines[1:]] == [
        "classic (2 seeds)",
        "poisson (1 seeds)",
        "ours (2 seeds)",
        "ours - classic",
        "ours - poisson",
    ]
    assert "+0.300 ± 0.000" in lines[4]


def test_every_arm_is_measured_with_every_seed(data, tmp_path, fabric):
    arms = REAL | {"specks": Arm(draw=draw_speck)}

    table = run_experiment(arms, data, RECIPE, tmp_path, seeds=(0, 1), fabric=fabric)

    assert [(r.arm, r.seed) for r in table.results] == [
        ("real", 0),
        ("specks", 0),
        ("real", 1),
        ("specks", 1),
    ]
    assert all(set(r.figures) == set(FIGURES) for r in table.results)
    assert read_table(tmp_path) == table
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".lock"}


def test_what_was_measured_is_not_measured_again(data, tmp_path, fabric):
    run_experiment(REAL, data, RECIPE, tmp_path, seeds=(0,), fabric=fabric)
    file = tmp_path / "real.0.json"
    told = json.loads(file.read_text())
    told["figures"]["picture_ap"] = 0.125
    file.write_text(json.dumps(told))

    (known,) = run_experiment(REAL, data, RECIPE, tmp_path, seeds=(0,), fabric=fabric).results

    assert known.figures["picture_ap"] == 0.125


@pytest.mark.parametrize("other", ["weights", "recipe", "pictures"])
def test_a_result_of_another_origin_is_measured_anew(data, tmp_path, fabric, other):
    run_experiment(REAL, data, RECIPE, tmp_path, seeds=(0,), fabric=fabric)
    before = (tmp_path / "real.0.json").read_text()
    arm, recipe = REAL["real"], RECIPE
    if other == "weights":
        arm = replace(arm, origin="other")
    elif other == "recipe":
        recipe = replace(recipe, defect_share=0.6)
    else:
        data = replace(data, train=data.train[:-1])

    run_experiment({"real": arm}, data, recipe, tmp_path, seeds=(0,), fabric=fabric)

    assert (tmp_path / "real.0.json").read_text() != before


def test_what_another_process_measures_is_waited_for(data, tmp_path, fabric):
    arms = REAL | {"classic": Arm()}
    with (tmp_path / "real.0.lock").open("a") as lock, ThreadPoolExecutor(1) as beside:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = beside.submit(
            run_experiment, arms, data, RECIPE, tmp_path, seeds=(0,), fabric=fabric
        )
        while not (tmp_path / "classic.0.json").exists():
            assert not running.done()
            time.sleep(0.05)
        left = (tmp_path / "real.0.json").exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        table = running.result()

    assert not left
    assert table.arms == ("real", "classic")


def test_pictures_are_chosen_for_validation_once_for_all(data):
    recipe = replace(RECIPE, val_defects=4, val_normals=2)

    chosen = val_pictures(data, recipe)

    assert [bool(r.flaws) for r in chosen] == [True] * 4 + [False] * 2
    assert [r.name for r in chosen] == [r.name for r in val_pictures(data, recipe)]
    assert len(val_pictures(data, RECIPE)) == len(data.val)
