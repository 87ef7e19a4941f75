from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.graph_metrics import GraphMetrics


def test_a_run_is_counted_with_its_rows_and_time():
    registry = CollectorRegistry()
    metrics = GraphMetrics(registry)

    with metrics.measure("tiny", "segmenter", 5):
        pass

    text = generate_latest(registry).decode()
    labels = '{graph="segmenter",product="tiny"}'
    assert f"flawsmith_executions_total{labels} 1.0" in text
    assert f"flawsmith_batch_size_sum{labels} 5.0" in text
    assert f"flawsmith_inference_seconds_count{labels} 1.0" in text


def test_a_run_that_fails_is_counted_as_a_failure_alone():
    registry = CollectorRegistry()
    metrics = GraphMetrics(registry)

    with pytest.raises(KeyError), metrics.measure("tiny", "segmenter", 5):
        raise KeyError

    text = generate_latest(registry).decode()
    assert 'flawsmith_inference_failures_total{graph="segmenter",product="tiny"} 1.0' in text
    assert "flawsmith_executions_total{" not in text
