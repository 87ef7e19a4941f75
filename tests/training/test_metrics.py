from __future__ import annotations

import numpy as np
import pytest

from models.steps.crops import Window
from models.steps.outlines import Region, find_regions
from training.metrics import (
    Predicted,
    average_precision_of,
    best_f1,
    count_scores,
    froc,
    image_auroc,
    is_covered,
    is_found,
    kid_like,
    ks_distance,
    pixel_average_precision,
    pixel_dice,
    recall_at,
)


def square(x: int, y: int, side: int) -> Region:
    (region,) = find_regions(np.ones((side, side), bool), offset_xy=(x, y))
    return region


@pytest.mark.parametrize(
    ("window", "shows"),
    [
        (Window(0, 0, 40), True),
        (Window(25, 0, 40), True),
        (Window(26, 0, 40), False),
        (Window(60, 60, 40), False),
        (Window(0, 0, 25), False),
        (Window(0, 0, 28), True),
    ],
)
def test_a_defect_is_covered_where_half_of_it_is_shown(window, shows):
    assert is_covered(square(20, 20, 10), [window]) is shows


def test_two_windows_that_show_a_third_each_do_not_cover():
    assert not is_covered(square(0, 0, 30), [Window(0, 0, 10), Window(20, 0, 10)])


@pytest.mark.parametrize(
    ("predicted", "found"),
    [
        (square(24, 24, 2), True),
        (square(0, 0, 22), False),
        (square(15, 15, 10), True),
        (square(29, 29, 4), False),
        (square(60, 60, 4), False),
    ],
)
def test_a_defect_is_found_by_overlap_or_by_the_centroid_in_it(predicted, found):
    assert is_found(square(20, 20, 10), predicted) is found


def test_froc_counts_defects_found_and_false_regions_by_falling_threshold():
    truths = [[square(0, 0, 10), square(50, 50, 10)], []]
    predictions = [
        [
            Predicted(square(0, 0, 10), 0.9),
            Predicted(square(2, 2, 4), 0.8),
            Predicted(square(30, 30, 4), 0.5),
            Predicted(square(50, 50, 10), 0.4),
        ],
        [Predicted(square(0, 0, 5), 0.7)],
    ]

    per_image, recall, thresholds = froc(truths, predictions)

    assert thresholds.tolist() == [0.9, 0.7, 0.5, 0.4]
    assert per_image.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert recall.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert recall_at(per_image, recall, 0.5) == 0.5
    assert recall_at(per_image, recall, 1.0) == 1.0


def test_froc_of_a_detector_that_says_nothing_is_empty():
    per_image, recall, _ = froc([[square(0, 0, 4)]], [[]])

    assert recall_at(per_image, recall, 2.0) == 0.0


def test_pixel_average_precision_of_a_hand_made_ranking():
    scores = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    truths = np.array([[True, False, True, False]])

    assert pixel_average_precision(scores, truths) == pytest.approx(0.5 * (1 + 2 / 3))
    assert pixel_average_precision(scores, np.zeros_like(truths)) == 0.0


def test_pixel_dice_of_half_an_overlap():
    predicted, truths = np.array([True, True, False]), np.array([False, True, True])

    assert pixel_dice(predicted, truths) == 0.5
    assert pixel_dice(~predicted & False, truths & False) == 1.0


def test_image_auroc_is_the_share_of_pairs_in_order():
    assert image_auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert image_auroc([0.1, 0.9], [True, True]) == 0.5


def test_kid_is_near_nothing_within_one_population_and_large_between_two():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400, 8))

    assert abs(kid_like(first, second)) < 0.05
    assert kid_like(first, second + 2) > 1.0


def test_kid_of_two_points_each_by_hand():
    first, second = np.array([[1.0], [1.0]]), np.array([[0.0], [0.0]])

    assert kid_like(first, second) == pytest.approx(8 + 1 - 2 * 1)


def test_ks_distance_is_the_widest_gap():
    assert ks_distance(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.0
    assert ks_distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 4.5])) == 0.75


def draw_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truths = rng.random((40, 50)) < 0.1
    return (rng.normal(0, 2, truths.shape) + 2 * truths).astype(np.float32), truths


def test_counted_scores_give_the_average_precision_of_sorted_ones():
    logits, truths = draw_scores(3)

    counted = average_precision_of(count_scores(logits, truths))

    assert counted == pytest.approx(pixel_average_precision(logits, truths), abs=2e-3)


def test_counts_of_pictures_add_up_to_those_of_all_their_pixels():
    (first, on_first), (second, on_second) = draw_scores(1), draw_scores(2)

    added = count_scores(first, on_first) + count_scores(second, on_second)

    both = count_scores(np.stack([first, second]), np.stack([on_first, on_second]))
    assert np.array_equal(added, both)
    assert added.sum() == first.size + second.size


def test_the_best_f1_is_that_of_the_best_threshold():
    logits, truths = draw_scores(5)

    f1, iou = best_f1(count_scores(logits, truths))

    every = [pixel_dice(logits >= t, truths) for t in np.unique(logits)]
    assert f1 == pytest.approx(max(every), abs=5e-3)
    assert iou == pytest.approx(f1 / (2 - f1))


def test_scores_beyond_all_bounds_are_counted_at_the_ends():
    counts = count_scores(np.array([[-99.0, 99.0]], np.float32), np.array([[False, True]]))

    assert average_precision_of(counts) == 1.0
    assert best_f1(counts) == (1.0, 1.0)


def test_without_a_defect_pixel_there_is_nothing_to_find():
    counts = count_scores(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))

    assert average_precision_of(counts) == 0.0
    assert best_f1(counts) == (0.0, 0.0)
