from __future__ import annotations

import pytest

from tests.bench.figures import Bar, Figure, median_times_s, table_of


@pytest.mark.parametrize(
    ("value", "bar", "judgement"),
    [
        (3.0, Bar("at least", 3.0), "ok"),
        (2.9, Bar("at least", 3.0), "short"),
        (8.0, Bar("at most", 8.0), "ok"),
        (8.1, Bar("at most", 8.0), "short"),
        (1.0, None, "info"),
    ],
)
def test_a_figure_is_judged_by_its_bar(value, bar, judgement):
    assert Figure("one", value, bar).judgement == judgement


def test_a_line_tells_name_value_bar_and_judgement_in_columns():
    figures = [Figure("slow_over_fast", 12.25, Bar("at least", 3.0)), Figure("share", 0.5)]

    lines = table_of(figures).splitlines()

    assert [line.split() for line in lines] == [
        ["slow_over_fast", "12.25", ">=", "3", "ok"],
        ["share", "0.50", "-", "info"],
    ]
    assert lines[0].index("ok") == lines[1].index("info")


def test_works_take_turns_and_the_first_round_does_not_count():
    order = []

    times = median_times_s((lambda: order.append("a"), lambda: order.append("b")), rounds=2)

    assert order == ["a", "b"] * 3
    assert len(times) == 2
