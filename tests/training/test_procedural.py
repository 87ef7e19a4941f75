from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.errors import ParameterInvalid
from models.manifest import ObjectRule
from tests.training.specks import HW, draw_record, draw_source
from training.data import Record
from training.procedural import ARMS, SCALE, copy_paste, perlin, perlin_noise, poisson
from training.sites import SiteSource

every_arm = pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())


@pytest.fixture(scope="module")
def source(data) -> SiteSource:
    return draw_source(data)


def draw(arm, source: SiteSource, count: int = 20) -> list[Record]:
    rng = np.random.default_rng(0)
    return [arm(source, rng) for _ in range(count)]


def normal_of(record: Record, source: SiteSource) -> Record:
    return next(r for r in source.normals if record.name.startswith(r.name))


def test_the_arms_go_by_the_protocols_names():
    assert tuple(ARMS) == ("copy-paste", "perlin", "poisson")


@every_arm
def test_no_pixel_outside_the_mask_is_touched_and_the_defect_shows(arm, source):
    for record in draw(arm, source):
        before = normal_of(record, source).image
        inside = record.labels > 0
        assert inside.any()
        assert np.array_equal(record.image[~inside], before[~inside])
        assert np.abs(record.image[inside].astype(int) - before[inside]).mean() >= 2
        assert record.image.dtype == record.labels.dtype == np.uint8
        assert record.group == "synthetic"


@every_arm
def test_the_normal_pictures_themselves_stay_as_they_are(arm, source):
    before = [record.image.copy() for record in source.normals]

    draw(arm, source)

    assert all(np.array_equal(r.image, b) for r, b in zip(source.normals, before, strict=True))
    assert not any(record.labels.any() for record in source.normals)


@every_arm
def test_every_defect_lies_in_the_object(arm, source):
    rule = ObjectRule(threshold="none", margin_hw=(0.3, 0.35))
    framed = replace(source, object_rule=rule, objects={})

    for record in draw(arm, framed):
        assert framed.object_of(normal_of(record, framed))[record.labels > 0].all()


@every_arm
def test_the_same_rng_draws_the_same_and_another_draws_another(arm, source):
    once, again, other = (arm(source, np.random.default_rng(seed)) for seed in (3, 3, 4))

    assert np.array_equal(once.image, again.image)
    assert np.array_equal(once.labels, again.labels)
    assert not np.array_equal(once.labels, other.labels)


@every_arm
def test_both_labels_are_drawn_and_none_that_has_no_defects(arm, source):
    pits = replace(source, defects=tuple(r for r in source.defects if r.flaws[0].label == 1))

    assert {f.label for r in draw(arm, source, 30) for f in r.flaws} == {1, 2}
    assert {f.label for r in draw(arm, pits, 10) for f in r.flaws} == {1}


@pytest.mark.parametrize("arm", [copy_paste, perlin])
def test_pictures_carry_as_many_defects_as_real_ones(arm, source):
    busy = draw_record(0, kinds=(1, 2))
    crumb = busy.labels.copy()
    crumb[2, 2] = 1
    busy = replace(busy, labels=crumb)

    counts = {len(r.flaws) for r in draw(arm, replace(source, defects=(busy,)))}

    assert len(busy.flaws) == 3
    assert counts == {2}


def test_pasted_defects_keep_their_look_and_about_their_size(source):
    areas = {k: [f.region.area_px for _, f in source.flaws[k - 1]] for k in (1, 2)}

    for record in draw(copy_paste, source):
        (flaw,) = record.flaws
        inside = record.image[record.labels > 0].mean()
        least, most = min(areas[flaw.label]), max(areas[flaw.label])
        assert 0.8 * SCALE[0] ** 2 * least < flaw.region.area_px < 1.2 * SCALE[1] ** 2 * most
        assert (inside < 90) == (flaw.label == 1)


@pytest.mark.parametrize("arm", [copy_paste, poisson])
def test_defects_of_bright_parts_stay_dark_on_dark_parts(arm, source):
    dark = tuple(replace(r, image=(r.image * 0.35).astype(np.uint8)) for r in source.normals)
    pits = tuple(r for r in source.defects if r.flaws[0].label == 1)

    for record in draw(arm, replace(source, normals=dark, defects=pits)):
        inside = record.labels > 0
        assert record.image[inside].mean() < 0.8 * record.image[~inside].mean()


def test_a_clone_is_marked_where_the_real_defect_is(source):
    pits = replace(source, defects=tuple(r for r in source.defects if r.flaws[0].label == 1))
    largest = max(flaw.region.area_px for _, flaw in pits.flaws[0])

    for record in draw(poisson, pits):
        assert (record.labels > 0).sum() < 1.2 * SCALE[1] ** 2 * largest
        assert np.median(record.image[record.labels > 0]) < 80


def test_noise_blobs_are_as_long_as_real_defects_and_never_alike(source):
    records = draw(perlin, source)

    longest = max(flaw.side_px for flaws in source.flaws for _, flaw in flaws)
    sides = [flaw.side_px for record in records for flaw in record.flaws]
    assert max(sides) <= 1.5 * SCALE[1] * longest
    assert np.median(sides) >= 5
    assert len({(r.labels > 0).tobytes() for r in records}) == len(records)


@every_arm
def test_a_defect_larger_than_the_picture_is_cut_to_it(arm, source):
    large = draw_record(0, kinds=())
    labels = large.labels.copy()
    labels[5:90, 5:120] = 1
    image = np.where(labels[..., None] > 0, np.uint8(60), large.image)
    small = replace(source.normals[0], name="small.png", image=source.normals[0].image[:40, :50])
    defects = (replace(large, image=image, labels=labels),)

    for record in draw(arm, replace(source, normals=(small,), defects=defects), 8):
        assert record.image.shape == (40, 50, 3)
        assert record.labels.any()


@every_arm
def test_normals_without_an_object_are_refused(arm, source):
    nowhere = {record.name: np.zeros(HW, bool) for record in source.normals}

    with pytest.raises(ParameterInvalid, match="no defect finds a place"):
        arm(replace(source, objects=nowhere), np.random.default_rng(0))


def test_noise_is_smooth_and_about_within_one():
    rng = np.random.default_rng(0)
    noises = [perlin_noise(64, cells_hw, rng) for cells_hw in ((1, 1), (4, 4), (2, 8)) * 10]

    assert max(np.abs(noise).max() for noise in noises) <= np.sqrt(2)
    assert abs(np.mean(noises)) < 0.1
    assert max(np.abs(np.diff(noise, axis=1)).max() for noise in noises) < 0.5
    assert max(noise.max() for noise in noises) > 0.6
