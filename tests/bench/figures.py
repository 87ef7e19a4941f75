"""A figure, its bar, and how two times become a ratio that a noisy machine cannot decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Bar:
    """What a figure is held against."""

    direction: Literal["at least", "at most"]
    limit: float

    def __str__(self) -> str:
        return f"{'>=' if self.direction == 'at least' else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One measured ratio; without a bar it only informs."""

    name: str
    value: float
    bar: Bar | None = None

    @property
    def judgement(self) -> Literal["ok", "short", "info"]:
        """Whether the value keeps its bar."""
        if self.bar is None:
            return "info"
        gap = self.value - self.bar.limit
        return "ok" if (gap >= 0 if self.bar.direction == "at least" else gap <= 0) else "short"


def table_of(figures: Sequence[Figure]) -> str:
    """One line for each figure: name, value, bar, judgement."""
    width = max(len(figure.name) for figure in figures)
    return "\n".join(
        f"{f.name:<{width}}  {f.value:7.2f}  {f.bar or '-'!s:<6}  {f.judgement}" for f in figures
    )


def median_times_s(works: Sequence[Callable[[], object]], *, rounds: int) -> list[float]:
    """The median time of each work, done in turn, so that a slow minute is slow for all of them.

    One round before the first that counts pays for memory and caches.
    """
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(1 + rounds):
        for times, work in zip(spent, works, strict=True):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return [median(times[1:]) for times in spent]
