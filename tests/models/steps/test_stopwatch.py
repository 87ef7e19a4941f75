from __future__ import annotations

import time

import pytest

from models.steps.stopwatch import Stopwatch


def test_a_stage_that_comes_again_adds_up_and_one_that_never_comes_is_0() -> None:
    watch = Stopwatch("first", "second")

    for _ in range(2):
        with watch.time("first"):
            time.sleep(0.002)

    assert watch.timings_ms["first"] >= 4.0
    assert watch.timings_ms["second"] == 0.0


def test_a_stage_that_fails_is_timed_too() -> None:
    watch = Stopwatch()

    with pytest.raises(RuntimeError), watch.time("failing"):
        raise RuntimeError

    assert watch.timings_ms["failing"] > 0.0
