from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.steps.outlines import Region, find_regions
from training.data import Record
from training.metrics import Predicted
from training.regions import (
    best_scores,
    count_pixels,
    draw_curve,
    look_up_flaws,
    measure_images,
    measure_pixels,
    measure_recall,
    measure_reliability,
    measure_sizes,
    part_predictions,
)

HW = (60, 100)


def square(x: int, y: int, side: int, hw: tuple[int, int] = HW) -> Region:
    mask = np.zeros(hw, bool)
    mask[y : y + side, x : x + side] = True
    (region,) = find_regions(mask)
    return region


def record(name: str, *squares: tuple[int, int, int], hw: tuple[int, int] = HW) -> Record:
    labels = np.zeros(hw, np.uint8)
    for x, y, side in squares:
        labels[y : y + side, x : x + side] = 1
    return Record(name, name, np.zeros((*hw, 3), np.uint8), labels)


RECORDS = (record("a", (10, 10, 8), (60, 30, 20)), record("b"))
PREDICTIONS = (
    (Predicted(square(10, 10, 8), 0.9), Predicted(square(80, 5, 4), 0.6)),
    (Predicted(square(40, 40, 4), 0.3),),
)


def test_froc_is_read_at_each_allowance():
    curve = draw_curve(RECORDS, PREDICTIONS)

    assert measure_recall(curve)["recall_at_0.25_false_regions"] == 0.5
    assert curve.score_at(0.5) == 0.6
    assert curve.score_at(0.1) == 0.9
    assert draw_curve(RECORDS, [[], []]).score_at(0.5) == float("inf")


def test_every_defect_is_looked_up_with_the_best_region_that_finds_it():
    twice = ((*PREDICTIONS[0], Predicted(square(11, 11, 6), 0.95)), ())

    looks = look_up_flaws(RECORDS, twice)

    assert [(look.flaw.side_px, look.score) for look in looks] == [(8, 0.95), (20, 0.0)]
    assert looks[0].image_share == pytest.approx(64 / 6000)


def test_recall_is_told_by_longest_side_and_by_share_of_the_picture():
    speck = record("s", (5, 5, 3), hw=(200, 400))

    figures = measure_sizes(look_up_flaws((*RECORDS, speck), (*PREDICTIONS, ())), 0.5)

    assert figures == {
        "recall_0_to_16_px": 0.5,
        "recall_16_to_32_px": 0.0,
        "recall_under_0.05_percent": 0.0,
        "recall_over_0.2_percent": 0.5,
    }


def test_a_defect_of_any_size_has_its_bin():
    wide = np.zeros((16, 5000), np.uint8)
    wide[4:8, 10:4990] = 1
    one = Record("w", "w", np.repeat(wide[..., None], 3, axis=2), wide)

    assert measure_sizes(look_up_flaws([one], [[]]), 0.5)["recall_128_to_4096_px"] == 0.0


def test_a_defect_that_nothing_finds_is_not_found_at_any_score():
    assert measure_sizes(look_up_flaws(RECORDS, [[], []]), 0.0)["recall_0_to_16_px"] == 0.0


def test_regions_are_parted_into_true_and_false():
    parted = part_predictions(RECORDS, PREDICTIONS)

    assert [(of.name, one.score, true) for of, one, true in parted] == [
        ("a", 0.9, True),
        ("a", 0.6, False),
        ("b", 0.3, False),
    ]


def test_the_calibration_error_is_the_gap_of_score_and_truth():
    error, bins = measure_reliability(RECORDS, PREDICTIONS)

    assert error == pytest.approx((0.1 + 0.6 + 0.3) / 3)
    assert [(one.count, one.share_true) for one in bins] == [(1, 0.0), (1, 0.0), (1, 1.0)]


def test_pixel_figures_are_those_of_a_painted_picture():
    painted = np.zeros((2, *HW))
    painted[0, 10:18, 10:18], painted[0, 5:9, 80:84], painted[1, 40:44, 40:44] = 0.9, 0.6, 0.3
    truth = np.stack([one.labels > 0 for one in RECORDS])

    figures = measure_pixels(RECORDS, PREDICTIONS, 0.5)

    expected = average_precision_score(truth.ravel(), painted.ravel())
    assert figures["pixel_ap"] == pytest.approx(expected)
    assert figures["pixel_dice"] == pytest.approx(2 * 64 / (80 + 464))
    assert figures["best_pixel_dice"] == pytest.approx(2 * 64 / (64 + 464))


def test_a_shared_pixel_counts_for_the_surer_region():
    over = ((Predicted(square(10, 10, 8), 0.4), Predicted(square(10, 10, 4), 0.8)), ())

    scores, hits, sizes = count_pixels(RECORDS, over)

    assert scores.tolist() == [0.8, 0.4]
    assert sizes.tolist() == hits.tolist() == [16, 48]


def test_pictures_without_regions_have_figures_too():
    figures = measure_pixels(RECORDS, [[], []], 0.5)

    assert figures["pixel_dice"] == figures["best_pixel_dice"] == 0.0
    assert figures["pixel_ap"] == pytest.approx(464 / 12000)
    assert measure_pixels(RECORDS[1:], [[]], 0.5)["pixel_ap"] == 0.0
    assert best_scores([[], []]).tolist() == [0.0, 0.0]


def test_a_picture_is_as_bad_as_its_surest_region():
    assert best_scores(PREDICTIONS).tolist() == [0.9, 0.3]
    assert measure_images(RECORDS, PREDICTIONS) == 1.0
