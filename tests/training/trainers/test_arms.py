from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle import open_bundle
from models.errors import ParameterInvalid
from models.manifest import ObjectRule
from tests.tiny import write_tiny_bundle
from tests.training.specks import HW, LABELS, draw_record
from training.data import Dataset, Record
from training.experiments import trial
from training.trainers.arms import (
    ARM_NAMES,
    OURS,
    TELLERS,
    annotate,
    digest_generators,
    draw_like_real,
    draw_pairs,
    generator_arm,
    plain_arms,
)

RECIPE = replace(trial(), object_rule=ObjectRule(threshold="none"))


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    bundle = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles")))
    return replace(bundle.synthesizer, labels=LABELS, params=_params(bundle.synthesizer))


def _params(synthesizer):
    shapes = synthesizer.params.shapes
    known = dict(zip(LABELS, shapes.values(), strict=True))
    return synthesizer.params.model_copy(update={"shapes": known})


def draw_speck(rng: np.random.Generator) -> Record:
    return draw_record(int(rng.integers(1000)), kinds=(1,))


def test_every_arm_but_ours_needs_no_network(data):
    arms = plain_arms(data, RECIPE)

    assert (*arms, OURS) == ARM_NAMES
    assert not arms["real"].is_augmented
    assert arms["classic"].is_augmented
    assert arms["classic"].draw is None


@pytest.mark.parametrize("name", ["copy-paste", "perlin", "poisson"])
def test_a_procedural_arm_draws_pictures_with_their_truth(data, name):
    arm = plain_arms(data, RECIPE)[name]
    assert arm.draw

    record = arm.draw(np.random.default_rng(1))

    assert record.image.shape == (*HW, 3)
    assert record.flaws
    assert arm.is_augmented


def test_our_pictures_are_normal_ones_outside_their_truth(data, synthesizer):
    arm = generator_arm(synthesizer, data)
    normals = {r.name: r.image for r in data.train_normals}
    assert arm.draw

    for seed in range(5):
        record = arm.draw(np.random.default_rng(seed))

        before = normals[record.name.split("#")[0]]
        assert record.flaws
        assert np.array_equal(before[record.labels == 0], record.image[record.labels == 0])
        assert (before[record.labels > 0] != record.image[record.labels > 0]).any()


def test_our_pictures_have_as_many_defects_as_real_ones_and_their_label(data, synthesizer):
    two = draw_record(11, kinds=(2,))
    two.labels[5:9, 5:9] = 2
    arm = generator_arm(synthesizer, Dataset(LABELS, (two, *data.train_normals), ()))
    assert arm.draw

    record = arm.draw(np.random.default_rng(0))

    assert [flaw.label for flaw in record.flaws] == [2, 2]


def test_a_sample_becomes_an_annotated_picture_of_its_normals_group(data, synthesizer):
    normal, sample = draw_like_real(data, synthesizer, np.random.default_rng(2))

    record = annotate(normal, sample, LABELS)

    assert record.group == normal.group
    assert np.array_equal(record.labels > 0, sample.mask)
    assert {LABELS[flaw.label - 1] for flaw in record.flaws} == {d.label for d in sample.defects}
    assert np.array_equal(record.image, sample.pixels)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for stage in ("mask_generator", "defect_generator"):
        (tmp_path / f"{stage}.pt").write_bytes(stage.encode())
    return tmp_path


def test_pairs_of_the_same_weights_and_params_are_of_one_origin(run, synthesizer):
    first, again = (digest_generators(run, synthesizer) for _ in range(2))

    assert first == again
    assert len(first) == 64


@pytest.mark.parametrize("stage", ["mask_generator", "defect_generator"])
def test_pairs_of_other_weights_are_of_another_origin(run, synthesizer, stage):
    before = digest_generators(run, synthesizer)

    (run / f"{stage}.pt").write_bytes(b"other")

    assert digest_generators(run, synthesizer) != before


def test_pairs_of_other_params_are_of_another_origin(run, synthesizer):
    params = synthesizer.params.model_copy(update={"site_candidates": 3})
    other = replace(synthesizer, params=params)

    assert digest_generators(run, other) != digest_generators(run, synthesizer)


@pytest.mark.parametrize("pattern", TELLERS)
def test_the_code_that_draws_our_pairs_is_where_the_digest_looks_for_it(pattern):
    assert any(Path(__file__).parents[3].glob(pattern))


def test_pairs_are_drawn_from_their_seed_alone():
    first, again, other = (
        draw_pairs(draw_speck, 3, seed=seed, margin_px=500) for seed in (4, 4, 5)
    )

    assert [r.name for r in first] == [r.name for r in again]
    assert [r.name for r in first] != [r.name for r in other]


def test_of_a_pair_only_what_a_crop_can_show_is_kept():
    (pair,) = draw_pairs(draw_speck, 1, seed=0, margin_px=3)

    rows, columns = np.nonzero(pair.labels)
    assert pair.labels.shape == (np.ptp(rows) + 7, np.ptp(columns) + 7)
    assert (rows.min(), columns.min()) == (3, 3)
    assert pair.image[pair.labels > 0].max() == 40


def test_a_refused_draw_is_repeated():
    def moody(rng: np.random.Generator) -> Record:
        if rng.random() < 0.5:
            raise ParameterInvalid("region", "is full")
        return draw_speck(rng)

    assert len(draw_pairs(moody, 8, seed=1, margin_px=9)) == 8


def test_an_arm_that_refuses_nearly_always_is_refused():
    def never(rng: np.random.Generator) -> Record:
        raise ParameterInvalid("region", f"is full {rng.random()}")

    with pytest.raises(ParameterInvalid, match="of 40 drawn pairs 0 are legal"):
        draw_pairs(never, 2, seed=1, margin_px=9)
