from __future__ import annotations

import pytest

from tests.bench.steadiness import measure_soak, mixed_requests
from tests.tiny import write_tiny_bundle


def test_one_request_in_twenty_is_bad_and_a_tenth_makes_defects():
    asks = mixed_requests("tiny", 2000)

    made = sum(ask.path.startswith("/synthesize") and "label" not in ask.path for ask in asks)
    assert 0.08 < made / len(asks) < 0.12
    assert len({ask.path for ask in asks}) > made  # each seed once, the bad ones, detections


def test_the_same_requests_are_drawn_each_time():
    assert mixed_requests("tiny", 50) == mixed_requests("tiny", 50)


@pytest.mark.slow
def test_a_soak_counts_the_bad_requests_and_none_that_failed(tmp_path):
    write_tiny_bundle(tmp_path)

    figures = measure_soak(tmp_path, "tiny", requests=60, first=20)

    told = {figure.name: figure for figure in figures}
    assert told["soak_failed_requests"].value == 0
    assert 0.0 < told["soak_bad_requests_share"].value < 0.3
    assert told["soak_memory_after_over_after_20"].value > 0.5
