"""How long each stage of a story took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds by stage; a stage that comes again adds up."""

    def __init__(self, *stages: str) -> None:
        self.timings_ms = dict.fromkeys(stages, 0.0)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            took_ms = 1e3 * (time.perf_counter() - started_s)
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + took_ms
