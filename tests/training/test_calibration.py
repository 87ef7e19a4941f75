from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from models.bundle import Bundle, open_bundle
from tests.tiny import write_tiny_bundle
from training.calibration import (
    Calibration,
    Limits,
    calibrate,
    choose_limits,
    coverage,
    cross_judge,
    judge_parts,
    limits_of,
    sweep_thresholds,
    with_calibration,
)
from training.data import Record
from training.evaluation import evaluate_detection
from training.recipes import CalibrationRecipe

HW = (96, 160)
GOALS = CalibrationRecipe()
Spot = tuple[int, int, int, bool]
"""x, y, red, and whether it is a defect; each 6 × 6 px."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles")))


def draw(name: str, *spots: Spot, group: str = "") -> Record:
    """Black, with red spots: the tiny bundle's graphs answer with the red channel."""
    image, labels = np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8)
    for x, y, red, is_defect in spots:
        image[y : y + 6, x : x + 6, 0] = red
        labels[y : y + 6, x : x + 6] = is_defect
    return Record(name, group or name, image, labels)


RECORDS = (
    draw("a", (8, 8, 255, True), (120, 60, 250, True)),
    draw("b", (40, 40, 255, True), (120, 16, 160, False)),
    draw("c"),
    draw("d", (80, 40, 150, False)),
)


def chosen(bundle: Bundle, *records: Record, goals: CalibrationRecipe = GOALS) -> Calibration:
    return calibrate(sweep_thresholds(records, bundle.detector), goals)


def test_calibration_parts_good_from_bad_parts(bundle):
    calibration = chosen(bundle, *RECORDS)

    figures = evaluate_detection(RECORDS, with_calibration(bundle, calibration).detector)
    assert calibration.review_score == calibration.min_score
    assert calibration.min_confidence == pytest.approx(0.6)
    assert figures["false_accept_rate"] == figures["false_reject_rate"] == 0.0
    assert figures["look_again_share"] == 0.0
    assert figures["recall_as_calibrated"] == 1.0


def test_calibration_looks_where_faint_defects_are(bundle):
    faint = draw("e", (40, 40, 125, True))

    calibration = chosen(bundle, *RECORDS, faint)

    assert 0.4 < calibration.min_confidence <= 0.46


def test_no_confidence_is_asked_for_where_any_would_lose_a_defect(bundle):
    faintest = draw("e", (40, 40, 2, True))

    assert chosen(bundle, *RECORDS, faintest).min_confidence == 0.0


def test_confidence_is_asked_for_where_a_defect_may_be_lost(bundle):
    faintest = draw("e", (40, 40, 2, True))

    calibration = chosen(bundle, *RECORDS, faintest, goals=CalibrationRecipe(lost_share=0.25))

    assert calibration.min_confidence == pytest.approx(0.6)


@pytest.mark.parametrize(("missed_share", "least"), [(0.05, 0.4), (0.5, 0.6)])
def test_no_confidence_silences_more_bad_parts_than_may_be_missed(bundle, missed_share, least):
    faint, goals = draw("e", (40, 40, 125, True)), {"lost_share": 0.5}

    asked = CalibrationRecipe(missed_share=missed_share, **goals)
    calibration = chosen(bundle, RECORDS[0], draw("h"), faint, goals=asked)

    assert least <= calibration.min_confidence <= least + 0.06


def test_a_detector_that_finds_nothing_is_still_calibrated(bundle):
    calibration = chosen(bundle, draw("e", (40, 40, 1, True)), draw("f"))

    assert all(0.0 <= value <= 1.0 for value in asdict(calibration).values())


def test_calibration_takes_the_mask_threshold_that_finds_most(bundle):
    faint = draw("g", (40, 40, 110, True))

    assert chosen(bundle, RECORDS[0], draw("h"), faint).mask_threshold < 0.5


def test_no_mask_threshold_silences_more_bad_parts_than_may_be_missed(bundle):
    faint = draw("e", (40, 40, 110, True))
    lures = [draw(f"l{i}", (40, 40, 112, False), (80, 40, 112, False)) for i in range(3)]
    records = (RECORDS[0], faint, *lures)

    strict, loose = (
        chosen(bundle, *records, goals=CalibrationRecipe(missed_share=share)).mask_threshold
        for share in (0.05, 0.5)
    )

    assert strict < 0.5
    assert loose == 0.5


def test_only_regions_that_a_confident_crop_shows_are_kept(bundle):
    swept = sweep_thresholds(RECORDS, bundle.detector)

    every, sure = (swept.predictions(0.5, c) for c in (0.0, 0.9))

    assert [len(found) for found in every] == [2, 2, 0, 1]
    assert [len(found) for found in sure] == [2, 1, 0, 0]


BAD = np.arange(1, 21) / 25 + 0.19
"""0.23 to 0.99: twenty parts, of which 5 % are one."""
GOOD = np.arange(20) / 50
"""0 to 0.38."""


def limits_for(bad: np.ndarray, good: np.ndarray, **goals: float) -> Limits:
    is_bad = np.arange(len(bad) + len(good)) < len(bad)
    return choose_limits(np.concatenate([bad, good]), is_bad, CalibrationRecipe(**goals))


def shares(bad: np.ndarray, good: np.ndarray, limits: Limits) -> tuple[float, float]:
    return float((bad < limits.review).mean()), float((good >= limits.least).mean())


def test_overlapping_parts_are_looked_at_again_between_the_limits():
    limits = limits_for(BAD, GOOD)

    assert 0.23 < limits.review <= 0.27
    assert 0.36 < limits.least <= 0.38
    assert shares(BAD, GOOD, limits) == (0.05, 0.05)


def test_no_limit_is_further_out_than_the_stated_rates_need():
    limits = limits_for(BAD, GOOD, missed_share=0.0, rejected_share=0.0)

    assert limits.review <= 0.23 < limits.review + 0.04
    assert limits.least > 0.38 > limits.least - 0.04


def test_parts_that_one_limit_tells_apart_need_no_second_look():
    limits = limits_for(np.array([0.7, 0.9]), np.array([0.0, 0.3]))

    assert limits.review == limits.least == pytest.approx(0.5)


def test_parts_that_show_nothing_are_missed_and_cost_no_more_than_themselves():
    bad = np.array([0.0, 0.0, 0.4, 0.8])

    limits = limits_for(bad, GOOD)

    assert shares(bad, GOOD, limits) == (0.5, 0.05)


def test_bad_parts_alone_and_good_parts_alone_still_give_limits():
    assert limits_for(BAD, np.array([])).review <= limits_for(BAD, np.array([])).least
    assert limits_for(np.array([]), GOOD).review <= limits_for(np.array([]), GOOD).least


def test_each_part_is_judged_by_its_own_limits():
    scores, is_bad = np.array([0.2, 0.5, 0.5, 0.9]), np.array([True, True, False, False])
    strict, loose = Limits(0.3, 0.4), Limits(0.6, 0.95)

    assert judge_parts(scores, is_bad, [strict] * 4) == {
        "false_accept_rate": 0.5,
        "false_reject_rate": 1.0,
        "look_again_share": 0.0,
    }
    assert judge_parts(scores, is_bad, [strict, strict, loose, loose]) == {
        "false_accept_rate": 0.5,
        "false_reject_rate": 0.0,
        "look_again_share": 0.25,
    }


def test_cross_validated_rates_come_from_limits_that_never_saw_the_group(bundle):
    alike = [draw(f"b{i}", (40, 40, 255, True)) for i in range(4)]
    good = [draw(f"g{i}") for i in range(4)]
    odd = draw("odd", (40, 40, 200, False))

    figures = cross_judge(sweep_thresholds((*alike, *good, odd), bundle.detector), GOALS)
    seen = chosen(bundle, *alike, *good, odd)

    assert seen.min_score > 0.8
    assert figures["false_accept_rate_cross"] == 0.0
    assert figures["false_reject_rate_cross"] == 0.2


def test_one_group_alone_cannot_be_crossed(bundle):
    records = [draw("a", (8, 8, 255, True), group="g"), draw("b", group="g")]

    assert cross_judge(sweep_thresholds(tuple(records), bundle.detector), GOALS) == {}


def test_other_thresholds_leave_the_bundle_itself_alone(bundle):
    changed = with_calibration(bundle, Calibration(0.25, 0.75, 0.6, 0.4)).detector.params

    assert (changed.min_confidence, changed.min_score, changed.mask_threshold) == (0.25, 0.75, 0.4)
    assert limits_of(changed) == Limits(review=0.6, least=0.75)
    assert bundle.detector.params.min_confidence == 0.5
    assert bundle.detector.params.mask_threshold == 0.5


def test_a_detector_without_a_second_limit_lets_nobody_look_again(bundle):
    params = bundle.detector.params

    assert params.review_score is None
    assert limits_of(params) == Limits(params.min_score, params.min_score)


def test_coverage_counts_defects_of_which_a_crop_shows_half(bundle):
    swept = sweep_thresholds(RECORDS, bundle.detector)
    one = swept.detector.with_params(n=1, min_confidence=0.0).params

    assert coverage(RECORDS, swept.fields, one) == pytest.approx(2 / 3)
    assert coverage(RECORDS[2:], swept.fields[2:], one) == 0.0
