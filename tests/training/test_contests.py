from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import open_bundle
from models.errors import ParameterInvalid
from models.manifest import ObjectRule
from models.synthesis import Synthesizer
from tests.tiny import write_tiny_bundle
from tests.training.specks import LABELS, draw_record
from training.contests import MEASURES, Contest, draw_each, hold_contest, measure_galleries
from training.data import Dataset, Record
from training.experiments import trial
from training.galleries import visit
from training.trainers.arms import OURS, PROCEDURAL

RECIPE = replace(trial(), object_rule=ObjectRule(threshold="none"))


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    tiny = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles"))).synthesizer
    shapes = dict(zip(LABELS, tiny.params.shapes.values(), strict=True))
    params = tiny.params.model_copy(update={"shapes": shapes})
    return replace(tiny, labels=LABELS, params=params)


@pytest.fixture(scope="module")
def contest(data: Dataset, synthesizer: Synthesizer) -> Contest:
    return hold_contest(data, RECIPE, synthesizer, count=6)


def draw_speck(rng: np.random.Generator) -> Record:
    return draw_record(int(rng.integers(1000)), kinds=(1,))


def refuse_odd(rng: np.random.Generator) -> Record:
    number = int(rng.integers(2))
    if number:
        raise ParameterInvalid("normals", "is odd")
    return draw_record(number, kinds=(1,))


def test_ours_and_every_arm_that_draws_take_part(contest):
    assert tuple(contest.galleries) == tuple(contest.figures) == (OURS, *PROCEDURAL)
    assert {row["crops"] for row in contest.figures.values()} == {6.0}
    assert {row["real_crops"] for row in contest.figures.values()} == {6.0}


def test_all_arms_draw_on_normal_pictures_of_validation(contest, data):
    for gallery in contest.galleries.values():
        for record in gallery.records:
            kept = record.labels == 0
            assert any(np.array_equal(record.image[kept], r.image[kept]) for r in data.val_normals)


def test_our_promises_are_told_of_the_very_pictures_that_are_compared(contest):
    assert contest.promises["made"] == 1.0
    assert contest.promises["promise_identical"] == contest.promises["promise_visible"] == 1.0


def test_a_request_of_ours_that_gives_nothing_is_counted(data, synthesizer):
    impossible = {
        label: shape.model_copy(update={"min_contrast": 255.0})
        for label, shape in synthesizer.params.shapes.items()
    }
    params = synthesizer.params.model_copy(update={"shapes": impossible})

    contest = hold_contest(data, RECIPE, replace(synthesizer, params=params), count=2)

    assert contest.promises["made"] == 0.0
    assert contest.promises["rejected_unmade"] == 1.0
    assert contest.figures[OURS]["crops"] == 0
    assert next(line for line in contest.lines() if line.startswith(OURS)).split()[1:] == [
        "0",
        *["-"] * len(MEASURES),
    ]


def test_the_lines_tell_each_arm_with_its_error_and_the_floor(contest):
    head, *rows = contest.lines()

    assert [row.split()[0] for row in rows] == [OURS, *PROCEDURAL, "real"]
    assert "KID-like" in head
    own = contest.figures[OURS]
    assert f"{own['kid']:.0f} ±{own['kid_error']:4.0f}" in rows[0]
    assert rows[0].split()[-1] == f"{own['visible']:.2f}"
    assert f"{own['kid_floor']:.0f} < {own['kid_floor_95']:.0f}" in rows[-1]


def test_the_best_of_a_column_may_be_shared_and_no_better_than_real_ones_is_needed():
    kid, diversity = MEASURES[:2]
    figures = {
        "ours": {"kid": 40.2, "diversity": 1.3},
        "perlin": {"kid": 39.9, "diversity": 1.0},
        "nothing": {"crops": 0.0},
    }

    assert kid.best(figures) == ["ours", "perlin"]
    assert diversity.best(figures) == ["ours", "perlin"]


def test_pictures_of_an_arm_come_from_their_own_seeds():
    names = [record.name for record in draw_each(draw_speck, 4)]

    assert names == [record.name for record in draw_each(draw_speck, 6)][:4]


def test_an_arm_that_finds_no_place_is_left_out_and_the_rest_goes_on():
    records = list(draw_each(refuse_odd, 20))

    assert 0 < len(records) < 20


def test_galleries_are_held_against_defects_of_validation(data):
    figures = measure_galleries({"same": visit(data.val), "none": visit([])}, data)

    assert figures["same"]["ks_log_area"] == 0.0
    assert figures["none"] == {"crops": 0.0, "real_crops": 6.0}
