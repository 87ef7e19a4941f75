from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.errors import ParameterInvalid
from models.steps.controls import choose_labels, parse_shares, require_contrasts, require_sizes

KNOWN = ("pit", "scratch", "dent")


def drawn(label: str | None, shares: dict[str, float] | None, count: int = 3000) -> Counter[str]:
    labels, rng = choose_labels(KNOWN, label, shares), np.random.default_rng(0)
    return Counter(KNOWN[labels.draw(rng)] for _ in range(count))


def test_without_a_wish_each_label_is_as_likely() -> None:
    assert all(count == pytest.approx(1000, abs=100) for count in drawn(None, None).values())


def test_a_label_that_is_asked_for_is_the_only_one() -> None:
    assert drawn("dent", None, 20) == {"dent": 20}


def test_labels_come_in_the_shares_that_are_asked_for() -> None:
    counts = drawn(None, {"scratch": 1, "pit": 3}, 4000)

    assert set(counts) == {"pit", "scratch"}
    assert counts["pit"] == pytest.approx(3000, abs=120)


@pytest.mark.parametrize(
    ("label", "shares", "field"),
    [
        ("rust", None, "label"),
        (None, {"rust": 1.0}, "labels"),
        (None, {}, "labels"),
        (None, {"pit": 0.0}, "labels"),
        (None, {"pit": -1.0, "scratch": 2.0}, "labels"),
        (None, {"pit": float("nan")}, "labels"),
        (None, {"pit": float("inf")}, "labels"),
        ("pit", {"pit": 1.0}, "labels"),
    ],
)
def test_labels_that_cannot_be_drawn_are_refused_by_name(
    label: str | None, shares: dict[str, float] | None, field: str
) -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        choose_labels(KNOWN, label, shares)

    assert refusal.value.field == field


def test_shares_are_read_as_they_are_written() -> None:
    assert parse_shares("pit:3,scratch:0.5") == {"pit": 3.0, "scratch": 0.5}


@pytest.mark.parametrize("text", ["", "pit", "pit:", "pit:x", "pit:1,", "pit:1,pit:2", "pit:1:2"])
def test_shares_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        parse_shares(text)

    assert refusal.value.field == "labels"


@pytest.mark.parametrize("size_px", [(1, 1), (5, 98), (98, 98)])
def test_sizes_within_the_picture_are_taken(size_px: tuple[int, int]) -> None:
    require_sizes(size_px, (100, 300), None)


@pytest.mark.parametrize(
    ("size_px", "reason"),
    [
        ((0, 5), "1 <= min <= max"),
        ((9, 8), "1 <= min <= max"),
        ((-4, 8), "1 <= min <= max"),
        ((5, 99), "at most 98 px can be painted in a picture of 300 × 100"),
    ],
)
def test_sizes_without_order_or_room_are_refused(size_px: tuple[int, int], reason: str) -> None:
    with pytest.raises(ParameterInvalid, match=reason) as refusal:
        require_sizes(size_px, (100, 300), None)

    assert refusal.value.field == "size_px"


def test_sizes_that_no_region_holds_are_refused() -> None:
    require_sizes((40, 90), (100, 300), (0, 0, 40, 10))

    with pytest.raises(ParameterInvalid, match="41 px do not fit into the region"):
        require_sizes((41, 90), (100, 300), (0, 0, 40, 10))


def test_a_defect_of_any_picture_has_a_largest_size() -> None:
    with pytest.raises(ParameterInvalid, match="at most 1024 px"):
        require_sizes((1, 2000), (4000, 4000), None)


@pytest.mark.parametrize("contrast", [(0.0, 5.0), (9.0, 8.0), (5.0, 256.0), (float("nan"), 9.0)])
def test_contrasts_without_order_are_refused(contrast: tuple[float, float]) -> None:
    with pytest.raises(ParameterInvalid, match="0 < min <= max <= 255") as refusal:
        require_contrasts(contrast, {"pit": 2.0})

    assert refusal.value.field == "contrast"


def test_contrasts_under_what_is_visible_are_refused_with_the_least() -> None:
    require_contrasts((1.0, 8.0), {"pit": 2.0, "scratch": 8.0})

    with pytest.raises(ParameterInvalid, match=r"scratch is visible from 8\.5 grey levels on"):
        require_contrasts((1.0, 8.0), {"pit": 2.0, "scratch": 8.5})


@pytest.mark.parametrize("shares", [{"pit": 1e308, "scratch": 1e308}, {"pit": float("inf")}])
def test_shares_beyond_all_reason_are_refused_and_overflow_nothing(
    shares: dict[str, float],
) -> None:
    with pytest.raises(ParameterInvalid, match="labels"):
        choose_labels(("pit", "scratch"), None, shares)
