from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.manifest import ObjectRule
from models.steps.sites import LEAST_SIDE_PX
from tests.training.specks import HW, draw_source
from training.data import Record
from training.sites import (
    LEAST_AREA_PX,
    SiteSource,
    deform,
    draw_ground,
    mirror,
    real_contrasts,
    trust,
    without_defect,
)


@pytest.fixture(scope="module")
def source(data) -> SiteSource:
    return draw_source(data)


@pytest.mark.parametrize("label", [0, 1])
def test_a_real_site_shows_its_whole_defect(source, label):
    rng = np.random.default_rng(0)
    areas = {f.region.area_px for _, f in source.flaws[label]}

    for real in (source.draw_real(label, rng) for _ in range(60)):
        rim = np.concatenate([real.mask[0], real.mask[-1], real.mask[:, 0], real.mask[:, -1]])
        shown_px = real.mask.sum() * (real.site.window.side_px / 64) ** 2
        assert not rim.any()
        assert min(abs(shown_px - area) / area for area in areas) < 0.1
        assert real.label == label
        assert real.site.window.side_px >= LEAST_SIDE_PX


def test_the_mask_lies_on_the_defect(source):
    rng = np.random.default_rng(1)

    for real in (source.draw_real(0, rng) for _ in range(20)):
        assert real.site.image[real.mask > 0.99].max() < 100
        assert real.site.image[real.mask == 0].min() > 100


def test_the_mask_is_of_the_one_defect_that_was_asked_for(source):
    image, labels = np.full((*HW, 3), 160, np.uint8), np.zeros(HW, np.uint8)
    labels[40:50, 40:50] = labels[40:50, 54:64] = 1
    image[40:50, 40:50], image[40:50, 54:64] = 40, 80
    both = replace(source, defects=(Record("two.png", "two", image, labels),))

    shown = [
        both.draw_real(0, np.random.default_rng(0), crop_scale=(4.0, 4.0), slack_share=0, flaw=flaw)
        for flaw in (0, 1)
    ]

    greys = [int(real.site.image[real.mask > 0.99].mean()) for real in shown]
    assert sorted(greys) == [40, 80]
    assert all({40, 80} <= set(np.unique(real.site.image)) for real in shown)


def test_crumbs_of_a_drawn_mask_are_no_defects(source):
    labels = np.zeros(HW, np.uint8)
    labels[10, 10 : 10 + LEAST_AREA_PX - 1] = labels[20, 10 : 10 + LEAST_AREA_PX] = 1
    record = Record("c.png", "c", np.full((*HW, 3), 160, np.uint8), labels)

    (kept,) = replace(source, defects=(record,)).flaws[0]

    assert kept[1].region.area_px == LEAST_AREA_PX


def test_without_slack_a_defect_lies_in_the_middle_of_the_side_that_was_asked_for(source):
    rng = np.random.default_rng(0)

    for flaw, (_, found) in enumerate(source.flaws[1]):
        real = source.draw_real(1, rng, crop_scale=(2.0, 2.0), slack_share=0.0, flaw=flaw)
        rows, columns = np.nonzero(real.mask >= 0.5)
        assert real.site.window.side_px == 2 * found.side_px
        assert abs((rows.min() + rows.max()) / 2 - 31.5) <= 2
        assert abs((columns.min() + columns.max()) / 2 - 31.5) <= 2


def test_a_deformed_site_keeps_picture_and_mask_together(source):
    real = source.draw_real(0, np.random.default_rng(0), slack_share=0.0)

    bent = [deform(real, np.random.default_rng(seed)) for seed in range(8)]

    assert len({one.mask.tobytes() for one in bent}) == 8
    for one in bent:
        assert one.site.image[one.mask > 0.99].max() < 110
        assert one.site.image[one.mask < 0.01].min() > 90
        assert 0.5 < one.mask.sum() / real.mask.sum() < 2.0
        assert one.label == real.label


def test_a_ground_is_the_own_square_painted_over_or_a_normal_one_as_large(source):
    real = source.draw_real(0, np.random.default_rng(3))

    own, other = (
        draw_ground(source, real, np.random.default_rng(0), elsewhere=elsewhere)
        for elsewhere in (False, True)
    )

    assert own.window == real.site.window
    assert np.array_equal(own.image, without_defect(real))
    assert other.window.side_px == real.site.window.side_px
    assert other.image.min() >= 150


def test_real_sites_differ_by_place_and_size(source):
    drawn = [source.draw_real(1, np.random.default_rng(seed)) for seed in range(20)]

    assert len({real.site.image.tobytes() for real in drawn}) == 20
    assert len({real.site.window.side_px for real in drawn}) > 5


def test_a_mirrored_site_is_mirrored_in_all_its_parts(source):
    real = source.draw_real(0, np.random.default_rng(0))
    mirrored = [mirror(real, np.random.default_rng(seed)) for seed in range(30)]

    turned = [one for one in mirrored if one is not real]
    assert 5 < len(turned) < 25
    assert np.array_equal(turned[0].site.image[:, ::-1], real.site.image)
    assert np.array_equal(turned[0].mask[:, ::-1], real.mask)


def test_a_normal_site_lies_around_a_pixel_of_the_object(data):
    source = replace(
        draw_source(data), object_rule=ObjectRule(threshold="none", margin_hw=(0.3, 0.3))
    )
    rng = np.random.default_rng(0)

    for site in (source.draw_normal(0, rng) for _ in range(40)):
        x, y, side_px, _ = site.window.box
        assert site.object.any()
        assert 0 <= x <= HW[1] - side_px
        assert 0 <= y <= HW[0] - side_px
        assert 0.3 * HW[1] - 1 <= x + side_px / 2 <= 0.7 * HW[1] + 1


def test_a_normal_site_shows_no_defect(source):
    rng = np.random.default_rng(0)

    assert all(source.draw_normal(1, rng).image.min() >= 150 for _ in range(30))


def test_a_pseudo_normal_has_its_defect_painted_over(source):
    for label in (0, 1):
        real = source.draw_real(label, np.random.default_rng(2))

        painted = without_defect(real)

        inside = real.mask > 0.5
        assert abs(painted[inside].mean() - 160) < 8
        far = real.mask[:, :] == 0
        assert np.mean(painted[far] == real.site.image[far]) > 0.5


def test_labels_are_drawn_alike_and_only_where_there_are_defects(data):
    source = draw_source(data)
    pits = replace(source, defects=tuple(r for r in source.defects if r.flaws[0].label == 1))
    rng = np.random.default_rng(0)

    drawn = [source.draw_label(rng) for _ in range(400)]

    assert 0.4 < np.mean(drawn) < 0.6
    assert {pits.draw_label(rng) for _ in range(20)} == {0}


def test_sides_are_eleven_rising_quantiles_spread_out_where_few_are_known(source):
    sides = source.sides_px(1)

    assert len(sides) == 11
    assert sides[5] == pytest.approx(18.0)
    assert list(sides) == sorted(sides)
    assert sides[0] / sides[5] == pytest.approx(np.exp(-0.5 * (1 - trust(len(source.flaws[1])))))
    assert list(source.sides_px(0)) == sorted(source.sides_px(0))


def test_a_hundred_defects_are_trusted_more_than_one():
    assert trust(0) == 0.0
    assert trust(1) == pytest.approx(1 / 6)
    assert 0.9 < trust(100) < 1.0


def test_contrasts_are_what_the_defects_change(source):
    pits = real_contrasts(source, 0, count=20, seed=1)

    assert pits.shape == (20,)
    assert 80 < np.median(pits) < 130


def test_the_object_of_each_record_is_its_own(data):
    dark = replace(data.val_normals[0], name="dark.png", image=np.zeros((*HW, 3), np.uint8))
    half = replace(dark, name="half.png", image=dark.image.copy())
    half.image[:, 64:] = 255
    source = replace(draw_source(data), object_rule=ObjectRule(threshold="otsu"))

    assert source.object_of(dark).all()
    assert not source.object_of(half)[:, :60].any()
    assert source.object_of(half)[:, 68:].all()
