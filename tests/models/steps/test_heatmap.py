from __future__ import annotations

import time

import numpy as np
import pytest

from models.steps.heatmap import (
    Peak,
    cell_of,
    choose_peaks,
    confidence_of,
    draw_peaks,
    find_peaks,
    logit_of,
)

HW, STRIDE = (40, 60), 8
FAR_APART = [(36.0, 36.0), (236.0, 44.0), (444.0, 36.0), (100.0, 236.0), (340.0, 250.0)]


def drawn(points: list[tuple[float, float]], sigma_px: float = 12.0) -> np.ndarray:
    return draw_peaks(np.array(points), [sigma_px] * len(points), HW, STRIDE)


def logits_of(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def cells_of(points: list[tuple[float, float]]) -> set[tuple[int, int]]:
    return {cell_of(point, HW, STRIDE)[::-1] for point in points}


def chebyshev(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def test_peaks_that_are_drawn_are_found_again() -> None:
    found = find_peaks(logits_of(drawn(FAR_APART)), n=10, min_confidence=0.9, radius=2)

    assert set(found) == cells_of(FAR_APART)
    assert len(found) == len(FAR_APART)


def test_a_drawn_peak_is_1_on_its_cell_and_a_gaussian_of_its_sigma_beside_it() -> None:
    target = drawn([(100.0, 60.0)], sigma_px=16.0)

    assert target.shape == HW
    assert target[7, 12] == 1.0
    assert target[7, 14] == pytest.approx(np.exp(-0.5))
    assert (target < 1.0).sum() == target.size - 1


def test_where_gaussians_overlap_the_larger_value_stays() -> None:
    points = [(100.0, 60.0), (116.0, 60.0)]

    both = drawn(points)

    np.testing.assert_array_equal(both, np.maximum(drawn(points[:1]), drawn(points[1:])))


@pytest.mark.parametrize(
    ("point", "cell"),
    [((0.0, 0.0), (0, 0)), ((7.9, 8.0), (0, 1)), ((480.0, 320.0), (59, 39)), ((-3, -3), (0, 0))],
)
def test_a_point_has_its_cell_and_beyond_the_border_the_nearest(
    point: tuple[float, float], cell: tuple[int, int]
) -> None:
    assert cell_of(point, HW, STRIDE) == cell


def test_coverage_finds_all_of_five_defects_where_the_literal_rule_stays_on_one() -> None:
    scores = drawn(FAR_APART, sigma_px=40.0)
    scores[4, 4] += 1e-3
    logits = np.log((scores + 1e-3) / (1.002 - scores)).astype(np.float32)

    by_coverage = find_peaks(logits, n=5, min_confidence=0.5, radius=9)
    literal = find_peaks(logits, n=12, min_confidence=0.5, radius=9, rule="literal")

    assert set(by_coverage) == cells_of(FAR_APART)
    assert any(chebyshev(a, b) == 1 for a in literal for b in literal)
    assert len(cells_of(FAR_APART) & set(literal)) == 5


def test_the_literal_rule_takes_the_n_greatest_cells_neighbours_or_not() -> None:
    logits = np.full(HW, -5, np.float32)
    logits[10, 10:15] = [3, 4, 5, 4.5, 3.5]
    logits[30, 30] = 2

    literal = find_peaks(logits, n=3, min_confidence=0.5, radius=9, rule="literal")
    coverage = find_peaks(logits, n=3, min_confidence=0.5, radius=9)

    assert literal == [(10, 12), (10, 13), (10, 11)]
    assert coverage == [(10, 12), (30, 30)]


def test_the_literal_rule_obeys_the_confidence_too() -> None:
    logits = np.array([[2, 1, -1]], np.float32)

    assert find_peaks(logits, n=3, min_confidence=0.5, radius=0, rule="literal") == [(0, 0), (0, 1)]


def test_peaks_come_strongest_first_and_n_of_them() -> None:
    logits = np.full(HW, -5, np.float32)
    logits[5, 5], logits[5, 25], logits[5, 45] = 1, 3, 2

    assert find_peaks(logits, n=2, min_confidence=0.5, radius=3) == [(5, 25), (5, 45)]


@pytest.mark.parametrize(("radius", "count"), [(3.9, 2), (4.0, 1)])
def test_a_peak_within_the_radius_of_a_stronger_one_is_passed_over(
    radius: float, count: int
) -> None:
    logits = np.full(HW, -5, np.float32)
    logits[10, 10], logits[14, 13] = 3, 2

    assert len(find_peaks(logits, n=5, min_confidence=0.5, radius=radius)) == count


def test_a_peak_at_the_least_confidence_is_taken_and_one_below_is_not() -> None:
    logits = np.full(HW, -5, np.float32)
    logits[5, 5], logits[5, 25] = 0.0, -0.001

    assert find_peaks(logits, n=5, min_confidence=0.5, radius=3) == [(5, 5)]


def test_a_perfect_part_has_no_peak() -> None:
    assert find_peaks(np.full(HW, -8, np.float32), n=5, min_confidence=0.5, radius=3) == []


@pytest.mark.parametrize("n", [1, 5, 64])
@pytest.mark.parametrize("radius", [0.0, 3.0, 9.0, 100.0])
@pytest.mark.parametrize("rule", ["coverage", "literal"])
def test_without_a_least_confidence_there_are_always_n_distinct_cells(
    n: int, radius: float, rule: str
) -> None:
    slope = np.arange(HW[0] * HW[1], dtype=np.float32).reshape(HW) / 1000

    for logits in (slope, np.zeros(HW, np.float32)):
        found = find_peaks(logits, n=n, min_confidence=0.0, radius=radius, rule=rule)
        assert len(set(found)) == len(found) == n


def test_what_fills_up_keeps_its_distance_while_it_can() -> None:
    slope = np.arange(HW[0] * HW[1], dtype=np.float32).reshape(HW) / 1000

    found = find_peaks(slope, n=12, min_confidence=0.0, radius=9)

    assert found[0] == (39, 59)
    assert min(chebyshev(a, b) for a in found for b in found if a != b) > 9


def test_a_map_of_fewer_cells_than_n_gives_every_cell() -> None:
    assert len(find_peaks(np.zeros((2, 2), np.float32), n=5, min_confidence=0.0, radius=9)) == 4


def test_filling_up_a_large_map_takes_no_longer_than_reading_it() -> None:
    logits = np.random.default_rng(0).normal(size=(376, 512)).astype(np.float32)
    started = time.perf_counter()

    found = find_peaks(logits, n=64, min_confidence=0.0, radius=200)

    assert len(found) == 64
    assert time.perf_counter() - started < 2.0


def test_confidence_is_a_sigmoid_that_never_overflows() -> None:
    confidence = confidence_of(np.array([-1e6, -1, 0, 1, 1e6], np.float32))

    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, [0, 0.26894143, 0.5, 0.7310586, 1], atol=1e-6)


@pytest.mark.parametrize("rule", ["coverage", "literal"])
def test_where_the_logit_is_minus_infinity_nobody_looks_however_many_are_asked_for(
    rule: str,
) -> None:
    logits = np.full((6, 8), -np.inf, np.float32)
    logits[2:4, 3:5] = -3.0

    cells = find_peaks(logits, n=20, min_confidence=0.0, radius=0.0, rule=rule)

    assert sorted(cells) == [(2, 3), (2, 4), (3, 3), (3, 4)]


def peak_at(x: float, confidence: float) -> Peak:
    return Peak(x, 20.0, confidence)


def test_listed_peaks_are_chosen_by_coverage_in_the_order_of_the_list() -> None:
    listed = [peak_at(50, 0.9), peak_at(58, 0.8), peak_at(80, 0.7), peak_at(20, 0.2)]

    chosen = choose_peaks(listed, n=5, min_confidence=0.5, radius_px=10)

    assert chosen == [listed[0], listed[2]]


def test_covered_peaks_fill_up_strongest_first_where_n_are_wanted_whatever_the_confidence() -> None:
    listed = [peak_at(50, 0.9), peak_at(58, 0.3), peak_at(80, 0.2), peak_at(44, 0.4)]

    chosen = choose_peaks(listed, n=3, min_confidence=0.0, radius_px=10)

    assert chosen == [listed[0], listed[2], listed[3]]


def test_confidence_and_logit_are_inverses() -> None:
    scores = np.linspace(0.001, 0.999, 101, dtype=np.float32)

    np.testing.assert_allclose(confidence_of(logit_of(scores)), scores, atol=1e-6)
