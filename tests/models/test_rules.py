from __future__ import annotations

import numpy as np
import pytest

from models.bundle import Bundle
from models.findings import Defect
from models.inspection import Rule
from models.manifest import DetectionParams
from models.rules import judge, which_count
from models.steps.outlines import find_regions

SMALL_PITS = Rule(label="pit", under={"area_px": 40.0})
SOME_PITS = Rule(label="pit", under={"area_px": 100.0}, allowed=3)


@pytest.fixture
def params(tiny: Bundle) -> DetectionParams:
    """Certain from 0.5, in doubt from 0.3."""
    return tiny.detector.params.model_copy(update={"min_score": 0.5, "review_score": 0.3})


def defect(
    label: str = "pit",
    *,
    width: int = 6,
    height: int = 6,
    score: float = 0.9,
    truncated: bool = False,
) -> Defect:
    (region,) = find_regions(np.ones((height, width), bool))
    return Defect(label, score, region, truncated, (1,))


def with_rules(params: DetectionParams, *rules: Rule) -> DetectionParams:
    return params.model_copy(update={"rules": rules})


def test_without_rules_every_certain_defect_counts_strongest_first(
    params: DetectionParams,
) -> None:
    weak, strong = defect(score=0.6), defect(score=0.8)

    judgement = judge([weak, strong], params, None)

    assert judgement.defects == (strong, weak)
    assert (judgement.verdict, judgement.decision, judgement.tolerated) == ("ng", "ng", ())


def test_small_pits_are_no_defect_and_a_crack_of_any_length_is(params: DetectionParams) -> None:
    pit, crack = defect("pit", width=5), defect("crack", width=2, height=1)

    judgement = judge([pit, crack], with_rules(params, SMALL_PITS), None)

    assert judgement.defects == (crack,)
    assert [(one.defect, one.reason) for one in judgement.tolerated] == [(pit, "rule")]


@pytest.mark.parametrize(("count", "verdict"), [(0, "ok"), (3, "ok"), (4, "ng")])
def test_up_to_the_allowed_number_pass_and_with_one_more_all_of_them_count(
    params: DetectionParams, count: int, verdict: str
) -> None:
    pits = [defect(width=10, height=9) for _ in range(count)]

    judgement = judge(pits, with_rules(params, SOME_PITS), None)

    assert judgement.verdict == verdict
    assert len(judgement.defects) == (count if verdict == "ng" else 0)
    assert len(judgement.defects) + len(judgement.tolerated) == count


def test_the_first_rule_that_fits_is_the_one() -> None:
    small, medium, large = defect(width=5), defect(width=10), defect(width=20)

    counts = which_count([small] * 5 + [medium] * 3 + [large], (SMALL_PITS, SOME_PITS), None)

    assert counts == [False] * 8 + [True]


def test_a_defect_at_a_limit_is_not_under_it() -> None:
    at, under = defect(width=10, height=4), defect(width=39, height=1)

    assert which_count([at, under], (SMALL_PITS,), None) == [True, False]


def test_all_limits_of_a_rule_must_hold() -> None:
    short_and_thin = Rule(under={"length_px": 20.0, "width_px": 3.0})
    fits, long, wide = defect(width=15, height=2), defect(width=30, height=2), defect(width=15)

    assert which_count([fits, long, wide], (short_and_thin,), None) == [False, True, True]


@pytest.mark.parametrize(
    ("measure", "limit"), [("area_mm", 0.5), ("length_mm", 1.0), ("width_mm", 0.3)]
)
def test_a_limit_in_millimetres_goes_by_the_scale(measure: str, limit: float) -> None:
    rule = Rule.model_validate({"under": {measure: limit}})
    bar = defect(width=15, height=4)

    assert which_count([bar], (rule,), 0.05) == [False]
    assert which_count([bar], (rule,), 0.1) == [True]
    with pytest.raises(ValueError, match=measure):
        which_count([bar], (rule,), None)


def test_a_rule_without_limits_lets_a_label_pass_and_with_none_allowed_it_never_does() -> None:
    strict_then_loose = (Rule(label="crack", allowed=0), Rule())

    assert which_count([defect("pit")] * 9, strict_then_loose, None) == [False] * 9
    assert which_count([defect("crack", width=1, height=1)], strict_then_loose, None) == [True]


def test_a_truncated_defect_is_larger_than_it_looks_so_no_limit_lets_it_pass() -> None:
    cut = defect(width=2, truncated=True)

    assert which_count([cut], (SMALL_PITS,), None) == [True]
    assert which_count([cut], (Rule(label="pit"),), None) == [False]


def test_a_doubtful_defect_asks_for_a_review_and_a_certain_one_needs_none(
    params: DetectionParams,
) -> None:
    doubtful, certain = defect(score=0.4), defect(score=0.6)

    alone, both = judge([doubtful], params, None), judge([doubtful, certain], params, None)

    assert (alone.verdict, alone.decision) == ("ok", "review")
    assert [one.reason for one in alone.tolerated] == ["score"]
    assert (both.verdict, both.decision, both.defects) == ("ng", "ng", (certain,))


def test_a_doubtful_defect_that_a_rule_lets_pass_needs_no_review(params: DetectionParams) -> None:
    judgement = judge([defect(width=5, score=0.4)], with_rules(params, SMALL_PITS), None)

    assert judgement.decision == "ok"
    assert [one.reason for one in judgement.tolerated] == ["rule"]


def test_a_doubtful_defect_that_would_be_one_too_many_asks_for_a_review(
    params: DetectionParams,
) -> None:
    pits = [defect(width=10, height=9, score=score) for score in (0.9, 0.8, 0.7, 0.4)]

    judgement = judge(pits, with_rules(params, SOME_PITS), None)

    assert (judgement.verdict, judgement.decision) == ("ok", "review")
    assert [one.reason for one in judgement.tolerated] == ["rule"] * 3 + ["score"]


def test_with_a_least_score_of_0_no_rule_lets_anything_pass(params: DetectionParams) -> None:
    every = with_rules(params, SMALL_PITS).model_copy(update={"min_score": 0.0})

    assert judge([defect(width=2, score=0.01)], every, None).verdict == "ng"
