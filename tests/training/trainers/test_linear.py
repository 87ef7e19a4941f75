from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.errors import ParameterInvalid
from tests.training.specks import HW
from training.data import Record
from training.recipes import DownstreamRecipe, Schedule
from training.trainers.lessons import Lesson
from training.trainers.linear import LinearSegmenter, teach_linear
from training.trainers.pair_task import PictureJudge

SCHEDULE = Schedule(steps=8, batch=4, learning_rate=2e-3, validate_every=8)
RECIPE = DownstreamRecipe(schedule=SCHEDULE, side_px=64)


@pytest.fixture(scope="module")
def lesson(data) -> Lesson:
    return Lesson(data.train_defects, data.train_normals, (), is_augmented=True)


@pytest.fixture(scope="module")
def taught(lesson) -> LinearSegmenter:
    segmenter = LinearSegmenter()
    teach_linear(segmenter, lesson, RECIPE, seed=0)
    return segmenter


def test_it_finds_defects_of_pictures_that_it_was_not_taught(taught, data):
    untaught = PictureJudge(data.val, 1.0)(LinearSegmenter()).figures

    found = PictureJudge(data.val, 1.0)(taught).figures

    assert found["picture_ap"] > 0.6 > 0.3 > untaught["picture_ap"]


def test_its_logits_lie_on_the_pictures_pixels(taught, data):
    image = torch.from_numpy(data.val[0].image[None, :64])

    with torch.no_grad():
        logits = taught(image)

    assert logits.shape == (1, 1, *image.shape[1:3])


def test_the_same_lesson_teaches_the_same(lesson, taught):
    again = LinearSegmenter()

    teach_linear(again, lesson, RECIPE, seed=0)

    torch.testing.assert_close(again.layer.weight, taught.layer.weight, atol=1e-3, rtol=0)


def test_its_encoder_stays_as_it_was(taught):
    before, after = LinearSegmenter().encoder.state_dict(), taught.encoder.state_dict()

    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_crops_without_a_defect_teach_nothing(lesson):
    normal = replace(lesson, defects=lesson.normals)

    with pytest.raises(ParameterInvalid, match="no crop shows"):
        teach_linear(LinearSegmenter(), normal, RECIPE, seed=0)


def test_cracks_thinner_than_a_cell_are_learned_too(data):
    cracked = []
    for number, record in enumerate(data.train_normals):
        image, labels = record.image.copy(), np.zeros(HW, np.uint8)
        image[20:80, 30 + 7 * number], labels[20:80, 30 + 7 * number] = 20, 1
        cracked.append(Record(f"crack{number}", record.group, image, labels))
    segmenter = LinearSegmenter()

    teach_linear(
        segmenter, Lesson(cracked, data.train_normals, (), is_augmented=False), RECIPE, seed=0
    )

    assert PictureJudge(cracked, 1.0)(segmenter).figures["picture_ap"] > 0.15
