"""What the graphs of all bundles do, as metrics: by product and graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
ROWS = (1, 2, 4, 8, 16, 32)
BY = ("product", "graph")


class GraphMetrics:
    """Runs, their rows, their time, their failures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Counter(
            "flawsmith_inferences", "Rows that graphs answered for", BY, registry=registry
        )
        self.runs = Counter(
            "flawsmith_executions",
            "Runs of graphs; several requests may share one",
            BY,
            registry=registry,
        )
        self.failures = Counter(
            "flawsmith_inference_failures", "Runs of graphs that failed", BY, registry=registry
        )
        self.seconds = Histogram(
            "flawsmith_inference_seconds",
            "Time of one run of a graph",
            BY,
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "flawsmith_batch_size",
            "Rows in one run of a graph",
            BY,
            buckets=ROWS,
            registry=registry,
        )

    @contextmanager
    def measure(self, product: str, graph: str, rows: int) -> Iterator[None]:
        """Count a run, and how long it takes or that it fails."""
        start_s = time.perf_counter()
        try:
            yield
        except BaseException:
            self.failures.labels(product, graph).inc()
            raise
        self.seconds.labels(product, graph).observe(time.perf_counter() - start_s)
        self.runs.labels(product, graph).inc()
        self.batch_size.labels(product, graph).observe(rows)
