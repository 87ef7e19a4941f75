from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.manifest import ObjectRule
from models.steps.sites import LEAST_SIDE_PX
from tests.training.specks import HW, draw_source
from training.sites import SiteSource, mirror, real_contrasts, without_defect


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


def test_real_sites_differ_by_place_size_and_mirror(source):
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


def test_sides_are_eleven_rising_quantiles(source):
    sides = source.sides_px(1)

    assert len(sides) == 11
    assert sides == (18.0,) * 11
    assert list(source.sides_px(0)) == sorted(source.sides_px(0))


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
