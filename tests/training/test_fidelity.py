from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.training.specks import draw_record
from training.data import Record
from training.fidelity import (
    CROP_PX,
    compare,
    crop_defects,
    features,
    measure_fidelity,
    measure_shape,
    portray,
    stand_out,
    window_of,
)

PITS = [draw_record(seed, kinds=(1,)) for seed in range(24)]
SCRATCHES = [draw_record(seed, kinds=(2,)) for seed in range(100, 112)]


def square(side_px: int, *, inside: int, around: int = 120) -> Record:
    """A flat square defect in the middle of a flat picture."""
    image, labels = np.full((96, 96, 3), around, np.uint8), np.zeros((96, 96), np.uint8)
    start = 48 - side_px // 2
    labels[start : start + side_px, start : start + side_px] = 1
    image[labels > 0] = inside
    return Record(f"{side_px}-{inside}", "g", image, labels)


def test_a_crop_leaves_a_quarter_of_the_longest_side_at_each_end():
    record = square(20, inside=10)

    window = window_of(record.flaws[0], (96, 96))
    (crop,) = crop_defects([record])

    assert window.box == (33, 33, 30, 30)
    assert crop.image.shape == (CROP_PX, CROP_PX, 3)
    assert crop.mask.mean() == pytest.approx((20 / 30) ** 2, abs=0.02)
    assert crop.label == 1
    assert crop.shape[0] == pytest.approx(np.log(400))


def test_a_defect_in_the_corner_of_a_picture_that_is_too_small_is_cropped():
    labels = np.zeros((16, 200), np.uint8)
    labels[2:12, :150] = 1
    record = Record("long", "g", np.zeros((16, 200, 3), np.uint8), labels)

    (crop,) = crop_defects([record])

    assert crop.mask.any()


def test_pictures_without_a_defect_have_no_crops():
    record = draw_record(1, kinds=())

    assert crop_defects([record]) == []
    assert measure_fidelity([record], PITS) == {"crops": 0.0, "real_crops": 24.0}


def test_other_defects_of_the_kind_are_nearer_than_defects_of_another_kind():
    real = portray(crop_defects(PITS[:12]))

    same = compare(portray(crop_defects(PITS[12:])), real)
    other = compare(portray(crop_defects(SCRATCHES)), real)

    assert abs(same["kid"]) <= 2 * same["kid_error"]
    assert other["kid"] > 10 * other["kid_error"]
    assert other["kid"] > other["kid_floor_95"] > other["kid_floor"]
    assert same["kid_floor"] == other["kid_floor"]
    assert other["ks_elongation"] == 1.0 > same["ks_elongation"]


def test_copies_of_one_defect_are_not_diverse():
    copies = measure_fidelity([PITS[0]] * 8, PITS)
    varied = measure_fidelity(PITS[:12], PITS[12:])

    assert copies["diversity"] == pytest.approx(0.0, abs=1e-6)
    assert varied["diversity"] == pytest.approx(1.0, abs=0.3)


def test_figures_are_the_same_for_the_same_seed():
    one, again, other = (measure_fidelity(PITS[:9], PITS[9:], seed=s) for s in (1, 1, 2))

    assert one == again
    assert one["kid"] == other["kid"]
    assert one["kid_error"] != other["kid_error"]


def test_too_few_crops_to_halve_leave_the_distances_out():
    figures = measure_fidelity(PITS[:3], PITS)

    assert {"ks_log_area", "visible"} < set(figures)
    assert not {"kid", "diversity"} & set(figures)


@pytest.mark.parametrize(("inside", "expected"), [(120, 0.0), (90, 30.0), (255, 135.0)])
def test_a_flat_defect_stands_out_by_its_grey_levels(inside, expected):
    record = square(20, inside=inside)

    assert stand_out(record, record.flaws[0]) == pytest.approx(expected)


def test_texture_of_the_same_brightness_stands_out_too():
    record = square(20, inside=120)
    record.image[record.labels > 0] += np.tile(np.array([[30], [226]], np.uint8), (200, 3))

    assert stand_out(record, record.flaws[0]) == pytest.approx(30.0)


def test_a_neighbouring_defect_does_not_count_as_surroundings():
    record = square(20, inside=90)
    labels, image = record.labels.copy(), record.image.copy()
    labels[38:58, 60:70] = 1
    image[38:58, 60:70] = 0
    beside = replace(record, labels=labels, image=image)

    assert stand_out(beside, beside.flaws[0]) == pytest.approx(30.0)


def test_a_defect_that_fills_its_picture_has_nothing_to_stand_out_from():
    labels = np.ones((32, 32), np.uint8)
    record = Record("full", "g", np.full((32, 32, 3), 200, np.uint8), labels)

    assert stand_out(record, record.flaws[0]) == 0.0


def test_visible_is_what_stands_out_like_nine_tenths_of_the_real_ones():
    real = [square(20, inside=120 - depth) for depth in range(1, 41)]
    faint, clear = square(20, inside=118), square(20, inside=112)

    assert measure_fidelity(real, real)["visible"] == pytest.approx(0.9, abs=0.03)
    assert measure_fidelity([faint, clear, clear, clear], real)["visible"] == 0.75


def test_a_disc_is_round_and_solid_and_a_bar_is_long():
    canvas = np.zeros((64, 64), np.uint8)
    disc = cv2.circle(canvas.copy(), (32, 32), 15, 1, -1) > 0
    bar = cv2.rectangle(canvas.copy(), (10, 30), (49, 33), 1, -1) > 0
    cross = bar | bar.T

    assert measure_shape(disc) == pytest.approx((np.log(disc.sum()), 1.0, 1.0), abs=0.07)
    assert measure_shape(bar)[1] == pytest.approx(10.0, rel=0.01)
    assert measure_shape(cross)[2] < 0.5


def test_solidity_is_one_where_no_pixel_of_the_hull_is_missing_and_less_at_each_that_is():
    full = np.ones((5, 8), bool)
    notched = full.copy()
    notched[0, 3:5] = False

    assert measure_shape(full)[2] == 1.0
    assert measure_shape(np.eye(6, dtype=bool))[2] == 1.0
    assert measure_shape(notched)[2] == pytest.approx(38 / 40)


def test_the_shape_of_a_speck_is_defined():
    speck = np.zeros((8, 8), bool)
    speck[3, 3] = True

    assert measure_shape(speck) == (0.0, 1.0, 1.0)


def test_features_are_the_same_for_the_same_pictures():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]

    one, other = features([pictures[0], pictures[1], pictures[0]])[[0, 1]]

    assert one.shape == (152,)
    assert np.array_equal(features(pictures)[0], features(pictures)[0])
    assert np.abs(one - other).max() > 0.01
